"""The evaluator against a plain hook and a full forward pass for each step, and the laws of ablation."""

from __future__ import annotations

import pickle
import random
from functools import partial

import numpy as np
import oracles
import pytest
import torch
from captum.attr import (
    LayerActivation,
    LayerConductance,
    LayerGradCam,
    LayerGradientShap,
    LayerGradientXActivation,
    LayerLRP,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_ablate import (
    Batch,
    CumulativeAblationEvaluator,
    LayerClassSelectivity,
    LayerLinearProbe,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerUnitAblation,
    unit_scores,
)

METRICS = ["accuracy", "log_likelihood", "logit", "margin"]
SCORES = torch.tensor([0.3, -1.0, 2.0, 0.9, 0.1, -0.2])  # of the six units of dense[2]


def name_of(value):
    """Return a name for a parameter, the same in every process."""
    if isinstance(value, torch.Tensor):
        return f"tensor{tuple(value.shape)}"
    return getattr(value, "__name__", str(value))


def squared_error(outputs, target):
    """A metric of a user's: higher is better."""
    return -((outputs - nn.functional.one_hot(target, outputs.shape[1])) ** 2).sum(1)


def half(activation, target):
    """A reference of a user's, which looks at both."""
    return activation / 2 + target.reshape(-1, *[1] * (activation.ndim - 1))


def close(one, other, atol=1e-5):
    torch.testing.assert_close(torch.as_tensor(one).double(), torch.as_tensor(other).double(), rtol=1e-5, atol=atol)


def same(one, other, exact=True):
    """Hold two curves against each other: order, values, areas and what is said of random orders."""
    tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-5, "atol": 1e-6}
    assert torch.equal(one.order, other.order)
    assert torch.equal(one.n_ablated, other.n_ablated)
    torch.testing.assert_close(one.values, other.values, **tolerance)
    torch.testing.assert_close(one.ascending_values, other.ascending_values, **tolerance)
    assert one.over_random == pytest.approx(other.over_random, abs=0 if exact else 1e-6, nan_ok=True)
    assert one.p == pytest.approx(other.p, nan_ok=True)


def both_directions(model, layer, x, y, curve, replacement, metric, unit_dim=1):
    """The oracle's values of the curve's own order and of its reverse."""
    order, counts = curve.order.tolist(), curve.n_ablated.tolist()
    arguments = (counts, replacement, metric, unit_dim)
    return tuple(oracles.ablation_values(model, layer, x, y.tolist(), o, *arguments) for o in (order, order[::-1]))


def check(model, layer, x, y, curve, replacement, metric="accuracy", unit_dim=1):
    """Hold values, areas and headline numbers of a curve against the loop."""
    forth, back = both_directions(model, layer, x, y, curve, replacement, metric, unit_dim)
    np.testing.assert_allclose(curve.values, forth, atol=2e-5)
    np.testing.assert_allclose(curve.ascending_values, back, atol=2e-5)
    fractions = [k / len(curve.order) for k in curve.n_ablated.tolist()]
    down, up = oracles.deficit_areas(forth, fractions), oracles.deficit_areas(back, fractions)
    np.testing.assert_allclose(curve.areas, down, atol=2e-5)
    assert curve.deletion == pytest.approx(down.mean(), abs=2e-5)
    assert curve.insertion == pytest.approx(-up.mean(), abs=2e-5)
    assert curve.gap == pytest.approx(down.mean() - up.mean(), abs=4e-5)
    assert curve.gap_interval == pytest.approx(oracles.student_interval(down - up), abs=1e-4)
    assert curve.score[0] == pytest.approx(forth[0].mean(), abs=2e-5)
    assert torch.equal(curve.target, y)


def unit_mean(model, layer, x, unit_dim=1):
    """One number per unit over samples and positions, in the shape of one sample's output."""
    output = oracles.layer_output(model, layer, x)
    means = oracles.pooled(output, unit_dim).mean(0)
    if unit_dim is None:
        return torch.tensor(means).reshape(output.shape[1:])
    return torch.tensor(means).reshape([-1 if d == unit_dim % output.ndim else 1 for d in range(1, output.ndim)])


# Every reference, every metric.


@pytest.mark.parametrize("metric", [*METRICS, squared_error], ids=name_of)
@pytest.mark.parametrize("reference", ["zero", "mean", "tensor", "function"])
@pytest.mark.parametrize("layer", ["0", "2"])
def test_a_curve_is_a_hook_and_a_full_pass_for_each_step(dense, dense_data, layer, reference, metric):
    x, y = dense_data
    rank = (torch.randn(40, 5), torch.arange(40) % 3)
    module = dense.get_submodule(layer)
    units = 7 if layer == "0" else 6
    constant = torch.linspace(-1, 1, units)
    means = unit_mean(dense, module, rank[0])
    option = {"tensor": constant, "function": half}.get(reference, reference)
    replacement = {
        "zero": torch.zeros_like,
        "mean": lambda output: means.to(output).expand_as(output),
        "tensor": lambda output: constant.expand_as(output),
        "function": lambda output: half(output, y),
    }[reference]
    scores = torch.randn(units)
    evaluator = CumulativeAblationEvaluator(
        dense, layer, reference=option, metric=metric, steps=None, n_random=0, batch_size=25
    )
    curve = evaluator.evaluate(scores, (x, y), ranking_data=rank)
    assert curve.order.tolist() == scores.argsort(descending=True).tolist()
    check(dense, module, x, y, curve, replacement, metric)


@pytest.mark.parametrize("reference", ["zero", "mean"])
@pytest.mark.parametrize(("layer", "unit_dim"), [("conv1", 1), ("relu1", -3), ("conv2", None), ("conv2", -1)])
def test_a_curve_of_channels_positions_or_elements(digits_net, digits, small_digits, layer, unit_dim, reference):
    (x, y), rank = small_digits, (digits[0][1300:1350], digits[1][1300:1350])
    x, y, module = x[:30], y[:30], digits_net.get_submodule(layer)
    means = unit_mean(digits_net, module, rank[0], unit_dim)
    evaluator = CumulativeAblationEvaluator(
        digits_net, layer, reference=reference, metric="logit", steps=4, n_random=0, unit_dim=unit_dim, batch_size=20
    )
    units = 64 if unit_dim is None else {"conv1": 8, "relu1": 8, "conv2": 2}[layer]
    curve = evaluator.evaluate(torch.randn(units), (x, y), ranking_data=rank)
    check(
        digits_net, module, x, y, curve,
        torch.zeros_like if reference == "zero" else lambda output: means.to(output).expand_as(output),
        "logit", unit_dim,
    )  # fmt: skip


@given(
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 8), st.integers(2, 4)),
    n=st.integers(2, 9),
    batch_size=st.integers(1, 10),
    steps=st.one_of(st.none(), st.integers(1, 12)),
    metric=st.sampled_from(METRICS),
    reference=st.sampled_from(["zero", "mean"]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=15)
def test_curves_of_any_shape(sizes, n, batch_size, steps, metric, reference, seed):
    torch.manual_seed(seed)
    features, units, classes = sizes
    model = nn.Sequential(nn.Linear(features, units), nn.Tanh(), nn.Linear(units, classes)).eval()
    x, y = torch.randn(n, features), (torch.arange(n) + seed) % classes
    evaluator = CumulativeAblationEvaluator(
        model, "1", reference=reference, metric=metric, steps=steps, n_random=2, batch_size=batch_size
    )
    curve = evaluator.evaluate(torch.randn(units), (x, y))
    means = unit_mean(model, model[1], x)
    replacement = torch.zeros_like if reference == "zero" else lambda output: means.to(output).expand_as(output)
    forth, back = both_directions(model, model[1], x, y, curve, replacement, metric)
    near_tie = metric == "accuracy"  # where two outputs tie to rounding, the largest is anybody's
    for found, expected in ((curve.values, forth), (curve.ascending_values, back)):
        wrong = ~np.isclose(found, expected, atol=1e-4)
        assert wrong.mean() <= (0.02 if near_tie else 0)


def test_the_mean_is_one_number_per_unit_of_the_ranking_data(digits_net, digits, small_digits):
    rank = [(digits[0][1300:1330], digits[1][1300:1330]), (digits[0][1330:1337], digits[1][1330:1337])]
    means = unit_mean(digits_net, digits_net.conv1, digits[0][1300:1337]).float()
    by_name = CumulativeAblationEvaluator(digits_net, "conv1", reference="mean", metric="logit", n_random=0)
    by_tensor = CumulativeAblationEvaluator(digits_net, "conv1", reference=means, metric="logit", n_random=0)
    scores = torch.randn(8)
    same(
        by_name.evaluate(scores, small_digits, ranking_data=rank),
        by_tensor.evaluate(scores, small_digits, ranking_data=rank),
        exact=False,
    )
    own = by_name.evaluate(scores, small_digits)
    assert own.in_sample
    close(
        own.values,
        oracles.ablation_values(
            digits_net, digits_net.conv1, small_digits[0], small_digits[1].tolist(), own.order.tolist(),
            own.n_ablated.tolist(),
            lambda output: output.mean((0, 2, 3), keepdim=True).expand_as(output), "logit",
        ),
    )  # fmt: skip


class Donors(nn.Module):
    """Ten units that are all the number of the sample, as is every output: with all ablated, that of the donor."""

    def __init__(self):
        super().__init__()
        self.layer, self.classes = nn.Identity(), 2

    def forward(self, x):
        hidden = self.layer(x)
        return torch.stack([hidden.amax(1), hidden.amin(1)], dim=1)


def donors_of(evaluator, methods, data, rank):
    """The donor of each sample, read from the last step, ``{method: [n]}``; and the comparison."""
    comparison = evaluator.compare(methods, data, ranking_data=rank)
    return {name: curve.values[-1].tolist() for name, curve in comparison.curves.items()}, comparison


def test_resample_puts_one_whole_ranking_sample_in_place_of_each():
    n, m = 23, 31
    x = torch.arange(n, dtype=torch.float32)[:, None].expand(n, 10)
    rank = (1000 + torch.arange(m, dtype=torch.float32)[:, None].expand(m, 10), torch.arange(m) % 2)
    methods = {"a": torch.arange(10.0), "b": torch.arange(10.0).flip(0), "c": torch.randn(10)}
    largest, smallest = (
        CumulativeAblationEvaluator(
            Donors().eval(), "layer", reference="resample", metric=metric, steps=None, n_random=3, seed=4
        )
        for metric in (lambda outputs, _: outputs[:, 0], lambda outputs, _: outputs[:, 1])
    )
    data = (x, torch.arange(n) % 2)
    found, comparison = donors_of(largest, methods, data, rank)
    assert found["a"] == found["b"] == found["c"]
    donors = found["a"]
    assert set(donors) <= set(range(1000, 1000 + m))
    assert len(set(donors)) > 8
    low, _ = donors_of(smallest, methods, data, rank)
    assert low["a"] == donors  # all units have the same donor
    for curve in comparison.curves.values():
        for values in (*curve.values[1:], *curve.ascending_values[1:]):
            assert values.tolist() == donors  # at every step
    for batch_size in (1, 22):
        evaluator = CumulativeAblationEvaluator(
            Donors().eval(), "layer", reference="resample", metric=lambda outputs, _: outputs[:, 0],
            steps=2, n_random=0, seed=4, batch_size=batch_size,
        )  # fmt: skip
        assert donors_of(evaluator, methods, data, rank)[0]["a"] == donors
    parts = [(rank[0][i : i + 7], rank[1][i : i + 7]) for i in range(0, m, 7)]
    assert donors_of(largest, methods, data, parts)[0]["a"] == donors
    other = CumulativeAblationEvaluator(
        Donors().eval(), "layer", reference="resample", metric=lambda outputs, _: outputs[:, 0], n_random=0, seed=5
    )
    assert donors_of(other, methods, data, rank)[0]["a"] != donors


def test_the_donors_are_256_ranking_samples_at_most_drawn_evenly():
    n, m = 4000, 1000
    x = torch.zeros(n, 2)
    rank = (torch.arange(m, dtype=torch.float32)[:, None].expand(m, 2), torch.arange(m) % 2)
    evaluator = CumulativeAblationEvaluator(
        Donors().eval(), "layer", reference="resample", metric=lambda outputs, _: outputs[:, 0], n_random=0, steps=1
    )
    donors = donors_of(evaluator, {"a": torch.arange(2.0)}, (x, torch.arange(n) % 2), rank)[0]["a"]
    assert 200 < len(set(donors)) <= 256
    thirds = np.histogram(list(set(donors)), bins=3, range=(0, m))[0] / len(set(donors))
    assert (thirds > 0.2).all()
    assert np.bincount(np.array(donors, dtype=int)).max() < 45


@pytest.mark.parametrize("metric", [*METRICS, squared_error], ids=name_of)
@pytest.mark.parametrize("layer", ["0", "2"])
def test_resample_is_the_loop_with_the_donors_activations(dense, dense_data, layer, metric):
    x, y = dense_data
    rank = torch.randn(20, 5)
    module = dense.get_submodule(layer)
    evaluator = CumulativeAblationEvaluator(
        dense, layer, reference="resample", metric=metric, steps=3, n_random=0, seed=2, batch_size=17
    )
    scores = torch.randn(7 if layer == "0" else 6)
    curve = evaluator.evaluate(scores, (x, y), ranking_data=(rank, torch.arange(20) % 3))
    activations = torch.tensor(oracles.layer_output(dense, module, rank)).float()
    with torch.no_grad():  # which donor explains each sample's last step?
        tail = dense[int(layer) + 1 :]
        outputs = tail(activations)
    donor = []
    for i in range(len(x)):
        values = [
            float(metric(o[None], y[i : i + 1]))
            if callable(metric)
            else oracles.metric_values(metric, o[None], [int(y[i])])[0]
            for o in outputs
        ]
        donor.append(int(np.abs(np.array(values) - float(curve.values[-1, i])).argmin()))
    if metric == "accuracy":  # does not tell donors apart: take those that the logits tell
        twin = CumulativeAblationEvaluator(
            dense, layer, reference="resample", metric="logit", steps=3, n_random=0, seed=2
        ).evaluate(scores, (x, y), ranking_data=(rank, torch.arange(20) % 3))
        donor = [int((outputs[:, int(y[i])].double() - twin.values[-1, i]).abs().argmin()) for i in range(len(x))]
    check(dense, module, x, y, curve, lambda output: activations[donor], metric)


# Steps and orders.


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6]),
        (1, [0, 6]),
        (2, [0, 3, 6]),
        (3, [0, 2, 4, 6]),
        (6, [0, 1, 2, 3, 4, 5, 6]),
        (20, [0, 1, 2, 3, 4, 5, 6]),
        (1000, [0, 1, 2, 3, 4, 5, 6]),
        ([1, 3], [0, 1, 3, 6]),
        ((3, 1, 3), [0, 1, 3, 6]),
        ([0, 6], [0, 6]),
        (range(2, 5), [0, 2, 3, 4, 6]),
        (np.array([2, 5]), [0, 2, 5, 6]),
        (torch.tensor([2, 5]), [0, 2, 5, 6]),
        (np.int64(2), [0, 3, 6]),
    ],
)
def test_steps_are_counts_from_nothing_to_everything(dense, dense_data, steps, expected):
    curve = CumulativeAblationEvaluator(dense, "2", steps=steps, n_random=1).evaluate(SCORES, dense_data)
    assert curve.n_ablated.tolist() == expected
    assert curve.fraction.tolist() == [k / 6 for k in expected]
    assert curve.values.shape == (len(expected), 60)


@given(units=st.integers(1, 60), steps=st.integers(1, 80))
@settings(deadline=None, max_examples=15)
def test_a_number_of_steps_gives_evenly_spaced_counts(units, steps):
    model = nn.Sequential(nn.Linear(2, units), nn.Linear(units, 2)).eval()
    data = (torch.zeros(2, 2), torch.tensor([0, 1]))
    evaluator = CumulativeAblationEvaluator(model, "0", steps=steps, n_random=0, ascending=False)
    counts = evaluator.evaluate(torch.arange(float(units)), data).n_ablated.tolist()
    assert counts[0] == 0
    assert counts[-1] == units
    assert counts == sorted(set(counts))
    assert len(counts) <= min(steps, units) + 1
    assert all(min(abs(c - k * units / steps) for k in range(steps + 1)) <= 0.5 for c in counts)
    assert max(np.diff(counts)) <= max(1, np.ceil(units / steps))


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        (0, ValueError, "steps must be at least 1"),
        (-3, ValueError, "steps must be at least 1"),
        ([], ValueError, "steps must be counts of units to ablate"),
        ([0], ValueError, "steps must be counts of units to ablate"),
        ([-1, 2], ValueError, "steps must be counts of units to ablate"),
        ([1.5], ValueError, "steps must be counts of units to ablate"),
        (2.5, TypeError, "steps must be an int, a sequence of counts, or None; got 2.5"),
        (True, TypeError, "steps must be an int, a sequence of counts, or None"),
    ],
)
def test_steps_out_of_range_are_refused(dense, steps, error, message):
    with pytest.raises(error, match=message):
        CumulativeAblationEvaluator(dense, "2", steps=steps)


def test_more_units_than_there_are_cannot_be_ablated(dense, dense_data):
    with pytest.raises(ValueError, match="steps must not exceed the number of units, 6; got 7"):
        CumulativeAblationEvaluator(dense, "2", steps=[2, 7]).evaluate(SCORES, dense_data)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"n_random": -1}, "n_random must be an int of at least 0; got -1"),
        ({"n_random": 2.0}, "n_random must be an int"),
        ({"seed": -1}, "seed must be an int of at least 0"),
        ({"seed": None}, "seed must be an int of at least 0"),
        ({"metric": "f1"}, "metric must be one of 'accuracy'"),
        ({"reference": "median"}, r'reference must be "zero", "mean", "resample".*got \'median\''),
        ({"reference": 0}, r'reference must be "zero"'),
        ({"unit_dim": 0}, "unit_dim=0 is the axis of the samples"),
        ({"layer_mask": torch.tensor([0, 2])}, "layer_mask must use every group number"),
    ],
    ids=name_of,
)
def test_bad_settings_are_refused_at_once(dense, option, message):
    with pytest.raises((ValueError, TypeError), match=message):
        CumulativeAblationEvaluator(dense, "2", **option)


def test_the_reverse_is_the_descending_curve_of_negated_scores(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", steps=None, metric="logit", n_random=3)
    curve, negated = evaluator.evaluate(SCORES, dense_data), evaluator.evaluate(-SCORES, dense_data)
    assert torch.equal(curve.order.flip(0), negated.order)
    assert torch.equal(curve.ascending_values, negated.values)
    assert torch.equal(curve.values, negated.ascending_values)
    assert curve.gap == pytest.approx(-negated.gap, abs=1e-12)


def test_without_the_reverse_the_headline_is_deletion(dense, dense_data):
    options = {"n_random": 6, "metric": "margin"}
    with_reverse = CumulativeAblationEvaluator(dense, "2", **options).evaluate(SCORES, dense_data)
    comparison = CumulativeAblationEvaluator(dense, "2", ascending=False, **options).compare(
        {"a": SCORES, "b": -SCORES}, dense_data
    )
    curve = comparison["a"]
    assert curve.ascending_values is None
    assert comparison.random.ascending_areas is None
    assert torch.equal(curve.values, with_reverse.values)
    expected = curve.deletion - float(comparison.random.deletion.mean())
    assert curve.over_random == pytest.approx(expected, abs=1e-9)
    deletions = comparison.leaderboard["deletion"].tolist()
    assert deletions == sorted(deletions, reverse=True)
    assert "insertion" not in str(comparison).splitlines()[1]


def test_ties_are_broken_by_a_seeded_permutation_and_counted(dense, dense_data):
    def curve(scores, seed):
        return CumulativeAblationEvaluator(dense, "2", n_random=0, seed=seed).evaluate(scores, dense_data)

    tied = torch.tensor([1.0, 0, 1, 0, 1, 0])
    orders = {tuple(curve(tied, seed).order.tolist()) for seed in range(8)}
    assert len(orders) > 3
    for order in orders:
        assert set(order[:3]) == {0, 2, 4}
    assert curve(tied, 1).order.tolist() == curve(tied, 1).order.tolist()
    assert curve(tied, 0).ties == 4
    assert curve(torch.zeros(6), 0).ties == 5
    assert curve(SCORES, 0).ties == 0
    assert {curve(SCORES, seed).order.tolist() == curve(SCORES, 0).order.tolist() for seed in range(5)} == {True}


def test_random_orders_have_no_ties_in_common_with_a_constant_method(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=20, metric="logit")
    curve = evaluator.evaluate(torch.zeros(6), dense_data)
    assert curve.p > 0.1


# Against random orders.


def test_over_random_is_the_gap_minus_that_of_the_random_orders(dense, dense_data):
    comparison = CumulativeAblationEvaluator(dense, "2", n_random=11, metric="logit", seed=3).compare(
        {"a": SCORES, "b": -SCORES, "c": torch.arange(6.0)}, dense_data
    )
    null = comparison.random.areas - comparison.random.ascending_areas
    assert null.shape == (11, 60)
    close(comparison.random.gap, null.mean(1), atol=1e-12)
    for curve in comparison.curves.values():
        table = curve.gap_areas[:, None] - null.T
        assert curve.over_random == pytest.approx(float(table.mean()), abs=1e-9)
        assert curve.over_random_interval == pytest.approx(oracles.two_way_interval(table.tolist()), rel=1e-6)
        as_good = sum(float(g) >= curve.gap for g in comparison.random.gap)
        assert curve.p == pytest.approx((1 + as_good) / 12)


def test_the_values_of_random_orders_are_those_of_full_passes(dense, dense_data):
    """The orders are not told, but with one unit ablated a random curve must be that of one of the units."""
    x, y = dense_data
    comparison = CumulativeAblationEvaluator(dense, "2", n_random=30, metric="logit", steps=[1]).compare(
        {"a": SCORES}, dense_data
    )
    singles = [
        oracles.ablation_values(dense, dense[2], x, y.tolist(), [u], [1], torch.zeros_like, "logit") for u in range(6)
    ]
    means = [float(single.mean()) for single in singles]
    found = [int(np.abs(np.array(means) - float(s)).argmin()) for s in comparison.random.score[:, 1]]
    for score, unit in zip(comparison.random.score[:, 1], found, strict=True):
        assert float(score) == pytest.approx(means[unit], abs=1e-5)
    assert len(set(found)) == 6


def test_the_expected_gap_of_random_orders_is_zero(dense, dense_data):
    comparison = CumulativeAblationEvaluator(dense, "2", n_random=300, metric="logit").compare(
        {"a": SCORES}, dense_data
    )
    gaps = comparison.random.gap.numpy()
    assert abs(gaps.mean()) < 4 * gaps.std() / np.sqrt(300)
    assert gaps.std() > 0.01


def test_random_orders_are_the_same_for_all_methods_and_follow_the_seed(dense, dense_data):
    def compare(methods, seed=0):
        return CumulativeAblationEvaluator(dense, "2", n_random=4, metric="logit", seed=seed).compare(
            methods, dense_data
        )

    one = compare({"a": SCORES})
    many = compare({"b": -SCORES, "a": SCORES, "c": torch.zeros(6), "d": LayerConductance(dense, dense[2])})
    assert torch.equal(one.random.areas, many.random.areas)
    assert torch.equal(one.random.score, many.random.score)
    assert torch.equal(one.random.ascending_score, compare({"a": SCORES}).random.ascending_score)
    assert not torch.equal(one.random.areas, compare({"a": SCORES}, seed=1).random.areas)


def test_without_random_orders_nothing_is_said_of_them(dense, dense_data):
    comparison = CumulativeAblationEvaluator(dense, "2", n_random=0).compare({"a": SCORES}, dense_data)
    curve = comparison["a"]
    assert np.isnan([curve.over_random, curve.p, *curve.over_random_interval]).all()
    assert comparison.random.areas.shape == (0, 60)
    assert "random" not in str(comparison).lower()


def test_p_of_a_random_ranking_is_uniform(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "0", n_random=9, metric="logit", steps=3, seed=7)
    methods = {str(k): torch.randn(7) for k in range(200)}
    p = np.array([c.p for c in evaluator.compare(methods, dense_data).curves.values()])
    assert set(np.round(p * 10)) <= set(range(1, 11))
    comparison = evaluator.compare({"best": torch.zeros(7)}, dense_data)
    null = comparison.random.gap.numpy()
    assert 0 < (p <= 0.5).mean() < 1
    assert len(null) == 9


# Laws.


@pytest.mark.parametrize("reference", ["zero", "mean", "resample"])
def test_ablating_nothing_costs_nothing(dense, dense_data, reference):
    x, y = dense_data
    curve = CumulativeAblationEvaluator(dense, "2", reference=reference, metric="logit", n_random=0).evaluate(
        SCORES, dense_data
    )
    with torch.no_grad():
        intact = dense(x)[range(60), y].double()
    assert torch.equal(curve.values[0], intact)
    assert torch.equal(curve.ascending_values[0], intact)
    assert curve.deficit[0] == 0


def test_replacing_units_by_themselves_costs_nothing(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", reference=lambda a, _: a, metric="logit", n_random=2)
    curve = evaluator.evaluate(SCORES, dense_data)
    assert torch.equal(curve.values, curve.values[:1].expand_as(curve.values))
    assert curve.gap == 0
    assert curve.deletion == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("layer", ["0", "1", "2", "3"])
@pytest.mark.parametrize("reference", ["zero", "mean"])
def test_in_a_plain_chain_ablating_all_gives_the_constant_network(dense, dense_data, layer, reference):
    evaluator = CumulativeAblationEvaluator(dense, layer, reference=reference, metric=lambda o, _: o[:, 1], n_random=2)
    curve = evaluator.evaluate(torch.randn(7 if layer in "01" else 6), dense_data)
    assert float(curve.values[-1].max() - curve.values[-1].min()) < 1e-5
    assert float(curve.values[0].std()) > 1e-2
    close(curve.values[-1], curve.ascending_values[-1])
    if reference == "zero" and layer == "3":
        close(curve.values[-1], dense[4].bias[1].detach().expand(60))


def test_permuting_the_units_of_the_network_permutes_the_order_alone(dense, dense_data):
    permutation = torch.randperm(7)
    twin = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3)).eval()
    twin.load_state_dict(dense.state_dict())
    with torch.no_grad():
        twin[0].weight.copy_(dense[0].weight[permutation])
        twin[0].bias.copy_(dense[0].bias[permutation])
        twin[2].weight.copy_(dense[2].weight[:, permutation])
    options = {"metric": "logit", "steps": None, "n_random": 0}
    for make in (
        lambda m: LayerMeanActivity(m, "1"),
        lambda m: LayerConductance(m, m[1]),
        lambda m: LayerUnitAblation(m, "1"),
    ):
        own = CumulativeAblationEvaluator(dense, "1", **options).evaluate(make(dense), dense_data)
        other = CumulativeAblationEvaluator(twin, "1", **options).evaluate(make(twin), dense_data)
        if own.ties == 0:
            assert torch.equal(permutation[other.order], own.order)
        close(other.values, own.values)
        close(other.ascending_values, own.ascending_values)


@pytest.mark.parametrize("reference", ["zero", "mean", "resample"])
def test_the_batch_split_does_not_matter(dense, dense_data, reference):
    x, y = dense_data
    rank = (x[:30], y[:30])

    def curve(data, batch_size=None):
        evaluator = CumulativeAblationEvaluator(
            dense, "2", reference=reference, metric="margin", n_random=1, steps=3, batch_size=batch_size
        )
        return evaluator.evaluate(LayerMeanActivity(dense, "2"), data, ranking_data=rank)

    whole = curve((x, y))
    for batch_size in (7, 1000):
        same(curve((x, y), batch_size), whole, exact=False)
    dataset = TensorDataset(x, y)
    same(curve(dataset), whole, exact=False)
    same(curve(DataLoader(dataset, batch_size=16)), whole, exact=False)
    uneven = list(zip(x.split([1, 40, 0, 19]), y.split([1, 40, 0, 19]), strict=True))
    same(curve(uneven), whole, exact=False)


@pytest.mark.parametrize("reference", ["zero", "mean"])
def test_values_follow_the_samples(dense, dense_data, reference):
    x, y = dense_data
    shuffle = torch.randperm(60)
    evaluator = CumulativeAblationEvaluator(dense, "2", reference=reference, metric="margin", n_random=3)
    curve = evaluator.evaluate(SCORES, dense_data)
    other = evaluator.evaluate(SCORES, (x[shuffle], y[shuffle]))
    close(other.values, curve.values[:, shuffle])
    close(other.ascending_values, curve.ascending_values[:, shuffle])
    assert torch.equal(other.target, curve.target[shuffle])
    assert other.gap == pytest.approx(curve.gap, abs=1e-6)
    assert other.over_random_interval == pytest.approx(curve.over_random_interval, abs=1e-6)
    close(other.per_class, curve.per_class)


def test_insertion_is_a_run_that_keeps_only_the_top_units(dense, dense_data):
    x, y = dense_data
    curve = CumulativeAblationEvaluator(dense, "2", metric="logit", steps=None, n_random=0).evaluate(SCORES, dense_data)
    top = SCORES.argsort(descending=True)
    means = []
    for k in range(7):  # keep the top k: multiply by a mask in a plain forward pass
        mask = torch.zeros(6)
        mask[top[:k]] = 1
        with torch.no_grad():
            hidden = dense[:3](x) * mask
            means.append(float(dense[3:](hidden)[range(60), y].double().mean()))
    area = sum((means[k] + means[k + 1]) / 2 / 6 for k in range(6))
    assert curve.insertion == pytest.approx(area - means[6], abs=1e-5)
    close(curve.ascending_score.flip(0), torch.tensor(means))


@given(scale=st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=10)
def test_scores_times_a_positive_constant_change_nothing(scale):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).eval()
    data = (torch.randn(8, 3), torch.arange(8) % 2)
    scores = torch.tensor([0.5, -1.5, 2.0, 0.25, 0.0])
    evaluator = CumulativeAblationEvaluator(model, "1", n_random=2, metric="logit")
    same(evaluator.evaluate(scores * scale, data), evaluator.evaluate(scores, data))


def test_another_method_in_the_comparison_changes_nothing(dense, dense_data):
    rank = (torch.randn(40, 5), torch.arange(40) % 3)
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=2, metric="logit", reference="mean", steps=2)
    methods = {
        "activity": LayerMeanActivity(dense, "2"),
        "conductance": LayerConductance(dense, dense[2]),
        "ablation": LayerUnitAblation(dense, "2"),
        "mine": SCORES,
        "broken": LayerGradCam(dense, dense[0]),
    }
    together = evaluator.compare(methods, dense_data, ranking_data=rank)
    for name in together.curves:
        same(together[name], evaluator.evaluate(methods[name], dense_data, ranking_data=rank))
    backwards = evaluator.compare(dict(reversed(methods.items())), dense_data, ranking_data=rank)
    for name in together.curves:
        same(together[name], backwards[name])


@pytest.mark.parametrize("others", [1, 2])
def test_a_random_attribution_is_the_same_whatever_else_is_compared(dense, dense_data, others):
    method = partial(unit_scores, LayerGradientShap(dense, dense[2]), baselines=torch.randn(1, 5), stdevs=0.5)
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  Captum draws from it
    alone = evaluator.evaluate(method, dense_data)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    together = evaluator.compare({**{str(k): method for k in range(others)}, "mine": method}, dense_data)
    assert torch.equal(together["mine"].scores, alone.scores)


def test_random_attributions_follow_the_seed(dense, dense_data):
    method = partial(unit_scores, LayerGradientShap(dense, dense[2]), baselines=torch.randn(6, 5), stdevs=0.5)

    def scores(seed):
        return CumulativeAblationEvaluator(dense, "2", n_random=0, seed=seed).evaluate(method, dense_data).scores

    first = scores(3)
    assert torch.equal(scores(3), first)
    assert not torch.equal(scores(4), first)


def test_the_users_own_random_states_have_no_say(dense, dense_data):
    method = partial(unit_scores, LayerGradientShap(dense, dense[2]), baselines=torch.randn(6, 5), stdevs=0.5)
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    first = evaluator.evaluate(method, dense_data).scores
    torch.randn(5)
    assert torch.equal(evaluator.evaluate(method, dense_data).scores, first)
    random.random()
    np.random.rand(3)  # noqa: NPY002  Captum draws from it
    assert torch.equal(evaluator.evaluate(method, dense_data).scores, first)


# What is scored.


@pytest.mark.parametrize(
    "given_scores",
    [
        SCORES,
        SCORES.double(),
        SCORES.half(),
        SCORES.tolist(),
        SCORES.numpy(),
        SCORES[None],
        SCORES[:, None],
        SCORES.clone().requires_grad_(),
        (SCORES * 10).int(),
    ],
    ids=lambda s: f"{type(s).__name__}-{getattr(s, 'dtype', '')}-{tuple(getattr(s, 'shape', [6]))}",
)
def test_scores_come_as_tensors_lists_or_arrays(dense, dense_data, given_scores):
    curve = CumulativeAblationEvaluator(dense, "2", n_random=2).evaluate(given_scores, dense_data)
    same(curve, CumulativeAblationEvaluator(dense, "2", n_random=2).evaluate(SCORES, dense_data))
    assert not curve.scores.requires_grad


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (torch.randn(5), r"one value for each of the 6 units of '2'; got shape \(5,\)"),
        (torch.randn(2, 3), r"one value for each of the 6 units of '2'; got shape \(2, 3\)"),
        (torch.tensor(1.0), r"one value for each of the 6 units of '2'; got shape \(\)"),
        ([], r"one value for each of the 6 units of '2'; got shape \(0,\)"),
        (torch.tensor([1.0, 2, float("nan"), 4, 5, 6]), "scores must be finite; unit 2 has nan"),
        (torch.tensor([1.0, 2, 3, float("inf"), 5, -float("inf")]), r"unit 3 has inf \(2 such units\)"),
    ],
    ids=name_of,
)
def test_scores_of_the_wrong_length_or_not_finite_are_refused(dense, dense_data, scores, message):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    with pytest.raises(ValueError, match=message):
        evaluator.evaluate(scores, dense_data)
    comparison = evaluator.compare({"bad": scores, "good": SCORES}, dense_data)
    assert list(comparison.curves) == ["good"]
    with pytest.raises(KeyError, match=r"'bad' is not applicable"):
        comparison["bad"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: "conductance", r"a method must be a Captum layer attribution.*got str"),
        (
            lambda m: LayerConductance,
            r"LayerConductance is a class; pass an attribution: LayerConductance\(model, layer\)",
        ),
        (lambda m: LayerConductance(m, m[0]), r"belongs to another layer, '0', not to '2'"),
        (lambda m: LayerMeanActivity(m, "4"), r"belongs to another layer, '4', not to '2'"),
        (lambda m: LayerMeanActivity(m, ["2", "0"]), r"a list of layers; the evaluator ablates one layer"),
        (lambda m: LayerActivation(m, [m[2], m[0]]), r"a list of layers; the evaluator ablates one layer"),
        (lambda m: LayerMeanActivity(m, "2", unit_dim=None), r"unit_dim=None and the evaluator unit_dim=1"),
        (lambda m: LayerMeanActivity(m, "2", layer_mask=torch.tensor([0, 0, 1, 1, 2, 2])), r"layer_mask"),
        (lambda m: LayerGradientShap(m, m[2]), r"LayerGradientShap needs baselines"),
        (lambda m: partial(LayerConductance(m, m[2]).attribute, n_steps=3), r"partial\(unit_scores, attribution"),
        (
            lambda m: partial(unit_scores, LayerConductance(m, m[2]), unit_dim=-1),
            r"unit_dim of unit_scores is the evaluator's",
        ),
        (lambda m: partial(unit_scores, LayerConductance(m, m[2]), n_step=3), r"no argument 'n_step'"),
        (lambda m: torch.ones(6, dtype=torch.complex64), r"scores must be real numbers"),
        (lambda m: None, r"a method must be a Captum layer attribution.*got NoneType"),
    ],
)
def test_what_cannot_be_ranked_is_reported_while_the_others_go_on(dense, dense_data, make, message):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    comparison = evaluator.compare({"bad": make(dense), "good": SCORES}, dense_data)
    assert list(comparison.curves) == ["good"]
    assert list(comparison.failed) == ["bad"]
    with pytest.raises(ValueError, match=message):
        evaluator.evaluate(make(dense), dense_data)
    with pytest.raises(ValueError, match=message):
        raise ValueError(comparison.failed["bad"])


def test_a_layer_given_by_name_or_as_a_module_is_the_same_layer(dense, dense_data):
    by_name, by_module = (CumulativeAblationEvaluator(dense, layer, n_random=2) for layer in ("2", dense[2]))
    for layer in ("2", dense[2]):
        method = LayerMeanActivity(dense, layer)
        same(by_name.evaluate(method, dense_data), by_module.evaluate(method, dense_data))


def test_a_wrong_list_of_layers_is_refused_clearly(dense):
    with pytest.raises(ValueError, match="the list of layers is empty"):
        CumulativeAblationEvaluator(dense, [])
    with pytest.raises(ValueError, match="named twice"):
        CumulativeAblationEvaluator(dense, ["0", dense[0]])
    with pytest.raises(ValueError, match="unit_dim must be one value, or one for each of the 2 layers; got 3"):
        CumulativeAblationEvaluator(dense, ["0", "2"], unit_dim=[1, 1, 1])


def test_methods_that_fail_midway_are_reported_and_leave_nothing(dense, dense_data):
    class LayerBroken(LayerActivation):
        def attribute(self, inputs, target=None):
            self.layer.register_forward_hook(lambda *_: None)
            self.layer.mess = 1
            raise RuntimeError("no luck\nwith this one")

    relu = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    evaluator = CumulativeAblationEvaluator(relu, "1", n_random=0)
    comparison = evaluator.compare(
        {
            "LRP": LayerLRP(relu, relu[1]),
            "activation": LayerActivation(relu, relu[1]),
            "broken": LayerBroken(relu, relu[1]),
            "activity": LayerMeanActivity(relu, "1"),
        },
        dense_data,
    )
    assert list(comparison.curves) == ["activation", "activity"]
    assert list(comparison.failed) == ["LRP", "broken"]
    assert "no rule for ReLU" in comparison.failed["LRP"]
    assert "name a Linear or Conv layer" in comparison.failed["LRP"]
    assert "no luck" in comparison.failed["broken"]
    assert "\n" not in comparison.failed["broken"]
    assert not relu[1]._forward_hooks
    assert not hasattr(relu[1], "mess")


def test_if_nothing_is_applicable_all_reasons_are_given(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    with pytest.raises(ValueError, match=r"^no attribution is applicable: ") as caught:
        evaluator.compare({"a": torch.randn(4), "b": LayerConductance(dense, dense[0])}, dense_data)
    assert "a: scores must have one value for each of the 6 units" in str(caught.value)
    assert "b: the attribution belongs to another layer" in str(caught.value)


def test_attributions_must_be_named(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2")
    for wrong in ([SCORES], {}, SCORES):
        with pytest.raises(TypeError, match="attributions must be a mapping of at least one name"):
            evaluator.compare(wrong, dense_data)


def test_the_scores_of_each_kind_are_those_made_outside(dense, dense_data):
    rank = (torch.randn(40, 5), torch.arange(40) % 3)
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0, batch_size=9)
    conductance = LayerConductance(dense, dense[2])
    ours = [LayerMeanActivity, LayerClassSelectivity, partial(LayerMutualInformation, bins=4), LayerUnitAblation]
    comparison = evaluator.compare(
        {
            "conductance": conductance,
            "absolute": partial(unit_scores, conductance, samples="mean_abs", n_steps=9),
            **{str(k): make(dense, "2") for k, make in enumerate(ours)},
        },
        dense_data,
        ranking_data=rank,
    )
    close(comparison["conductance"].scores, unit_scores(conductance, rank))
    close(comparison["absolute"].scores, unit_scores(conductance, rank, samples="mean_abs", n_steps=9))
    for k, make in enumerate(ours):
        close(comparison[str(k)].scores, make(dense, "2").attribute(rank[0], target=rank[1]))


@pytest.mark.filterwarnings("ignore:.*units have an entropy below:UserWarning")
def test_groups_of_units_are_ablated_together(dense, dense_data):
    x, y = dense_data
    groups = torch.tensor([0, 1, 2, 0, 1, 2])
    evaluator = CumulativeAblationEvaluator(dense, "2", layer_mask=groups, steps=None, metric="logit", n_random=3)
    curve = evaluator.evaluate([1.0, 3.0, 2.0], dense_data)
    assert curve.order.tolist() == [1, 2, 0]
    assert curve.n_ablated.tolist() == [0, 1, 2, 3]
    close(
        curve.values,
        oracles.ablation_values(
            dense, dense[2], x, y.tolist(), [1, 4, 2, 5, 0, 3], [0, 2, 4, 6], torch.zeros_like, "logit"
        ),
    )
    method = LayerMeanActivity(dense, "2", layer_mask=groups)
    assert evaluator.evaluate(method, dense_data).scores.shape == (3,)
    assert evaluator.evaluate(LayerConductance(dense, dense[2]), dense_data).scores.shape == (3,)
    by_mean = CumulativeAblationEvaluator(
        dense, "2", layer_mask=groups, steps=None, metric="logit", n_random=0, reference="mean"
    ).evaluate([1.0, 3.0, 2.0], dense_data)
    values = oracles.grouped(oracles.layer_values(dense, dense[2], x), groups.tolist()).mean(0)
    means = torch.tensor([values[g] for g in groups]).float()
    close(
        by_mean.values,
        oracles.ablation_values(
            dense, dense[2], x, y.tolist(), [1, 4, 2, 5, 0, 3], [0, 2, 4, 6], means.expand_as, "logit"
        ),
    )


# Data, and how often they and the model are used.


class Counting:
    """A re-iterable of batches that counts how often it was begun and how many batches it gave."""

    def __init__(self, x, y, size):
        self.batches = list(zip(x.split(size), y.split(size), strict=True))
        self.begun = self.given = 0

    def __iter__(self):
        self.begun += 1
        for batch in self.batches:
            self.given += 1
            yield batch


class CountingLinear(nn.Linear):
    """Counts its calls, and those with a given number of samples."""

    calls = 0

    def forward(self, x):
        CountingLinear.calls += 1
        return super().forward(x)


@pytest.fixture
def counted():
    model = nn.Sequential(
        CountingLinear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3), nn.Tanh()
    ).eval()
    CountingLinear.calls = 0
    return model


@pytest.mark.filterwarnings("ignore:.*units have an entropy below:UserWarning")
def test_one_pass_over_the_ranking_data_serves_all_our_statistics(counted, dense_data):
    rank = Counting(torch.randn(40, 5), torch.arange(40) % 3, 10)
    ours = [
        LayerMeanActivity, LayerClassSelectivity, LayerMutualInformation, partial(LayerLinearProbe, C=1.0),
    ]  # fmt: skip
    evaluator = CumulativeAblationEvaluator(counted, "2", n_random=2, reference="mean")
    methods = {str(k): make(counted, "2") for k, make in enumerate(ours)}
    assert not evaluator.compare(methods, dense_data, ranking_data=rank).failed
    assert (rank.begun, rank.given) == (1, 4)
    few = CountingLinear.calls
    CountingLinear.calls = 0
    twice = Counting(torch.randn(80, 5), torch.arange(80) % 3, 10)
    evaluator.compare(methods, dense_data, ranking_data=twice)
    assert CountingLinear.calls - few == 4  # one forward pass for each further batch


def test_one_pass_over_the_ranking_data_serves_per_sample_methods_too(counted, dense_data):
    rank = Counting(torch.randn(40, 5), torch.arange(40) % 3, 10)
    methods = {
        "activity": LayerMeanActivity(counted, "2"),
        "conductance": LayerConductance(counted, counted[2]),
        "gradient": LayerGradientXActivation(counted, counted[2]),
    }
    CumulativeAblationEvaluator(counted, "2", n_random=2).compare(methods, dense_data, ranking_data=rank)
    assert (rank.begun, rank.given) == (1, 4)


def test_given_scores_need_no_ranking_data(counted, dense_data):
    rank = Counting(torch.randn(40, 5), torch.arange(40) % 3, 10)
    CumulativeAblationEvaluator(counted, "2", n_random=2).evaluate(SCORES, dense_data, ranking_data=rank)
    assert rank.given == 0


def test_one_recording_of_each_batch_serves_all_methods_directions_orders_and_steps(counted, monkeypatch):
    monkeypatch.setattr("captum_ablate.ablation.prefix.SLOW", torch.inf)  # on a busy machine a recording may take long

    def calls(batches, methods, n_random=0, steps=2):
        data = Counting(torch.randn(10 * batches, 5), torch.arange(10 * batches) % 3, 10)
        CountingLinear.calls = 0
        curve = CumulativeAblationEvaluator(counted, "2", n_random=n_random, steps=steps).compare(
            {str(k): torch.randn(6) for k in range(methods)}, data
        )["0"]
        assert curve.engine.startswith("replay")
        return CountingLinear.calls

    assert calls(7, 1) - calls(3, 1) == 4  # one full pass for each further batch
    assert calls(3, 9, n_random=15, steps=None) == calls(3, 1)
    assert calls(7, 9, n_random=15, steps=None) == calls(7, 1)


def test_evaluation_data_are_walked_through_once(counted):
    data = Counting(torch.randn(40, 5), torch.arange(40) % 3, 10)
    CumulativeAblationEvaluator(counted, "2", n_random=5).compare({"a": SCORES, "b": -SCORES}, data)
    assert data.given <= 4 + 1  # and one batch more, to see the layer


def test_one_shot_generators_are_refused_for_evaluation_and_fine_for_ranking(dense, dense_data):
    x, y = dense_data

    def stream():
        return ((a, b) for a, b in zip(x.split(20), y.split(20), strict=True))

    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=2)
    batches = stream()
    with pytest.raises(ValueError, match=r"one-shot generator.*pass a list of batches, a DataLoader"):
        evaluator.evaluate(SCORES, batches)
    assert len(list(batches)) == 3  # nothing of it was used
    method = LayerConductance(dense, dense[2])
    same(
        evaluator.evaluate(method, dense_data, ranking_data=stream()),
        evaluator.evaluate(method, dense_data, ranking_data=dense_data),
        exact=False,
    )
    with pytest.raises(ValueError, match=r"one-shot generator.*unit ablation"):
        evaluator.evaluate(LayerUnitAblation(dense, "2"), dense_data, ranking_data=stream())


def test_all_forms_of_data_and_labels_give_the_same_curve(dense, dense_data):
    x, y = dense_data
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=2, metric="logit")
    expected = evaluator.evaluate(SCORES, (x, y))
    dicts = [{"x": a, "y": b} for a, b in zip(x.split(25), y.split(25), strict=True)]
    for data in ((x, y.tolist()), (x, y.numpy()), (x, y[:, None].int()), ((x,), y), Batch((x,), y), [(x, y)]):
        same(evaluator.evaluate(SCORES, data), expected, exact=False)
    other = CumulativeAblationEvaluator(
        dense, "2", n_random=2, metric="logit", unpack_batch=lambda d: Batch((d["x"],), d["y"])
    )
    same(other.evaluate(SCORES, dicts), expected, exact=False)


def test_additional_arguments_reach_the_model(dense, dense_data):
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = dense

        def forward(self, x, by, scale):
            return self.net((x + by) * scale)

    x, y = dense_data
    by = torch.randn(60, 5)
    evaluator = CumulativeAblationEvaluator(Shifted().eval(), "net.2", n_random=2, batch_size=17, metric="logit")
    own = evaluator.evaluate(LayerGradientXActivation(evaluator.forward_func, dense[2]), Batch((x,), y, (by, 2.0)))
    plain = CumulativeAblationEvaluator(dense, "2", n_random=2, batch_size=17, metric="logit")
    expected = plain.evaluate(LayerGradientXActivation(dense, dense[2]), ((x + by) * 2, y))
    close(own.scores, expected.scores)
    same(own, expected, exact=False)


@pytest.mark.parametrize("data", [[], [(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long))]])
def test_an_empty_data_set_is_refused(dense, dense_data, data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    with pytest.raises(ValueError, match="data set is empty"):
        evaluator.evaluate(SCORES, data)
    with pytest.raises(ValueError, match="data set is empty"):
        evaluator.evaluate(LayerMeanActivity(dense, "2"), dense_data, ranking_data=data)


def test_one_class_only_is_refused(dense, dense_data):
    one = (torch.randn(9, 5), torch.ones(9, dtype=torch.long))
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    with pytest.raises(ValueError, match=r"one class only \(label 1\).*two or more"):
        evaluator.evaluate(SCORES, one)
    with pytest.raises(ValueError, match=r"one class only \(label 1\)"):
        evaluator.evaluate(LayerMeanActivity(dense, "2"), dense_data, ranking_data=one)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "labels of batch 0 are missing|target"),
        (torch.rand(60, 3), r"one integer class per sample.*Soft labels"),
        (torch.zeros(60), r"one integer class per sample"),
        (torch.arange(59), r"59 labels for inputs of shape \(60, 5\)"),
    ],
    ids=["none", "soft", "float", "short"],
)
def test_labels_that_are_no_classes_are_refused(dense, dense_data, target, message):
    with pytest.raises(ValueError, match=message):
        CumulativeAblationEvaluator(dense, "2").evaluate(SCORES, (dense_data[0], target))


def test_labels_beyond_the_outputs_are_refused(dense, dense_data):
    x, y = dense_data
    for metric in METRICS:
        evaluator = CumulativeAblationEvaluator(dense, "2", metric=metric, n_random=0)
        with pytest.raises(ValueError, match=r"labels must be 0\.\.2, the indices of the model's 3 outputs; got 4"):
            evaluator.evaluate(SCORES, (x, torch.where(y == 2, 4, y)))
    free = CumulativeAblationEvaluator(dense, "2", metric=lambda outputs, _: outputs[:, 0], n_random=0)
    assert free.evaluate(SCORES, (x, y + 40)).classes.tolist() == [40, 41, 42]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda o, t: o, r"metric must return one value per sample, \[60\]; got \(60, 3\)"),
        (lambda o, t: o.mean(), r"metric must return one value per sample, \[60\]; got \(\)"),
        (lambda o, t: 0.5, r"metric must return one value per sample, \[60\]; got float"),
        (lambda o, t: o[:, 0] / 0, "the metric is NaN or infinite"),
    ],
)
def test_a_metric_of_another_shape_or_not_finite_is_refused(dense, dense_data, metric, message):
    with pytest.raises(ValueError, match=message):
        CumulativeAblationEvaluator(dense, "2", metric=metric, n_random=0).evaluate(SCORES, dense_data)


def test_a_metric_that_raises_tells_its_own_error(dense, dense_data):
    def broken(outputs, target):
        raise ZeroDivisionError("my metric")

    with pytest.raises(ZeroDivisionError, match="my metric"):
        CumulativeAblationEvaluator(dense, "2", metric=broken, n_random=0).evaluate(SCORES, dense_data)


@pytest.mark.parametrize("kind", [lambda o, t: o.argmax(1) == t, lambda o, t: (o.argmax(1) == t).int()])
def test_a_metric_may_return_truth_or_integers(dense, dense_data, kind):
    curve = CumulativeAblationEvaluator(dense, "2", metric=kind, n_random=0).evaluate(SCORES, dense_data)
    expected = CumulativeAblationEvaluator(dense, "2", n_random=0).evaluate(SCORES, dense_data)
    assert torch.equal(curve.values, expected.values)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (torch.zeros(5), r"reference must broadcast to one sample's output \(6,\) of the layer; got shape \(5,\)"),
        (torch.zeros(60, 6), r"reference must broadcast to one sample's output \(6,\)"),
        (lambda a, t: a[:, :2], r"reference function must return the shape of its activation, \(\d+, 6\)"),
        (lambda a, t: 0.0, r"reference function must return the shape of its activation.*got float"),
    ],
)
def test_a_reference_of_another_shape_is_refused(dense, dense_data, reference, message):
    with pytest.raises(ValueError, match=message):
        CumulativeAblationEvaluator(dense, "2", reference=reference, n_random=0).evaluate(SCORES, dense_data)


def test_a_tensor_per_unit_of_channels_says_how_to_reshape(digits_net, small_digits):
    evaluator = CumulativeAblationEvaluator(digits_net, "conv2", reference=torch.zeros(16), n_random=0)
    with pytest.raises(ValueError, match=r"\(16, 2, 2\).*got shape \(16,\).*reshape it.*\[-1, 1, 1\]"):
        evaluator.evaluate(torch.randn(16), small_digits)


def test_a_model_in_training_mode_is_refused(dense_data):
    for extra in (nn.Dropout(0.5), nn.BatchNorm1d(4)):
        model = nn.Sequential(nn.Linear(5, 4), extra, nn.Linear(4, 3)).train()
        with pytest.raises(ValueError, match=rf"training mode: {type(extra).__name__} '1'.*model\.eval\(\)"):
            CumulativeAblationEvaluator(model, "0").evaluate(torch.randn(4), dense_data)
        CumulativeAblationEvaluator(model.eval(), "0", n_random=0).evaluate(torch.randn(4), dense_data)


def test_a_layer_that_is_not_there_or_does_not_run_is_refused(dense, dense_data):
    with pytest.raises(ValueError, match=r"no layer '9'"):
        CumulativeAblationEvaluator(dense, "9")
    with pytest.raises(ValueError, match=r"Linear is not a module of the model"):
        CumulativeAblationEvaluator(dense, nn.Linear(2, 2))
    dense.add_module("spare", nn.Identity())
    dense.forward = lambda x: dense[4](dense[3](dense[2](dense[1](dense[0](x)))))
    with pytest.raises(ValueError, match=r"layer 'spare' did not run in the forward pass"):
        CumulativeAblationEvaluator(dense, "spare").evaluate(SCORES, dense_data)


def test_outputs_with_logits_count_as_their_logits(dense, dense_data):
    class Output:
        def __init__(self, logits):
            self.logits, self.loss = logits, None

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = dense

        def forward(self, x):
            return Output(self.net(x))

    expected = CumulativeAblationEvaluator(dense, "2", n_random=3, metric="logit").evaluate(SCORES, dense_data)
    evaluator = CumulativeAblationEvaluator(Wrapped().eval(), "net.2", n_random=3, metric="logit")
    same(evaluator.evaluate(SCORES, dense_data), expected, exact=False)


def test_predictions_of_a_model_with_logits_can_be_attributed(dense, dense_data):
    class Output(dict):
        @property
        def logits(self):
            return self["logits"]

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = dense

        def forward(self, x):
            return Output(logits=self.net(x))

    model = Wrapped().eval()
    evaluator = CumulativeAblationEvaluator(model, "net.2", n_random=0)
    expected = CumulativeAblationEvaluator(dense, "2", n_random=0)
    for own, plain in (
        (LayerActivation(model, dense[2]), LayerActivation(dense, dense[2])),
        (LayerMeanActivity(model, "net.2"), LayerMeanActivity(dense, "2")),
        (LayerUnitAblation(model, "net.2"), LayerUnitAblation(dense, "2")),
    ):
        same(evaluator.evaluate(own, dense_data), expected.evaluate(plain, dense_data), exact=False)


@pytest.mark.parametrize("reference", ["zero", "mean"])
def test_a_plain_function_can_be_evaluated(dense, dense_data, reference):
    def run(x):
        return dense(x) * 2

    evaluator = CumulativeAblationEvaluator(
        run, dense[2], reference=reference, metric="logit", n_random=3, batch_size=25
    )
    curve = evaluator.evaluate(LayerConductance(run, dense[2]), dense_data)
    assert curve.engine.startswith("hook loop")
    means = unit_mean(dense, dense[2], dense_data[0])
    replacement = torch.zeros_like if reference == "zero" else lambda output: means.to(output).expand_as(output)
    check(run, dense[2], *dense_data, curve, replacement, "logit")
    close(curve.scores, unit_scores(LayerConductance(run, dense[2]), dense_data))
    with pytest.raises(TypeError, match="is a name, but forward_func is no nn"):
        CumulativeAblationEvaluator(run, "2")


def test_a_curve_in_each_class_is_that_of_its_samples(dense, dense_data):
    x, y = dense_data
    evaluator = CumulativeAblationEvaluator(dense, "2", metric="logit", n_random=0)
    curve = evaluator.evaluate(SCORES, dense_data)
    assert curve.classes.tolist() == [0, 1, 2]
    for row, c in zip(curve.per_class, (0, 1, 2), strict=True):
        own = oracles.ablation_values(
            dense, dense[2], x[y == c], [c] * int((y == c).sum()), curve.order.tolist(), curve.n_ablated.tolist(),
            torch.zeros_like, "logit",
        )  # fmt: skip
        close(row, own.mean(1))


def test_in_sample_is_what_ranks_on_the_data_it_is_evaluated_on(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    method = LayerMeanActivity(dense, "2")
    assert evaluator.evaluate(method, dense_data).in_sample
    assert evaluator.evaluate(LayerConductance(dense, dense[2]), dense_data).in_sample
    assert not evaluator.evaluate(method, dense_data, ranking_data=(torch.randn(9, 5), torch.arange(9) % 3)).in_sample


# The model, the data and the random states come back as they were.


class Brittle(nn.Module):
    """Raises when its input is small in a way that only ablation makes it, if asked to."""

    on = False

    def forward(self, x):
        if Brittle.on and bool((x == 0).all(dim=0).sum() >= 2):
            raise RuntimeError("the network is on fire")
        return x * 1.5


@pytest.mark.parametrize("forward", ["module", "function"])
@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("reference", ["zero", "resample"])
def test_everything_comes_back_as_it_was(dense_data, forward, raises, reference):
    model = nn.Sequential(nn.Linear(5, 6), Brittle(), nn.Linear(6, 4), nn.Dropout(0.0), nn.Linear(4, 3))
    model[0].bias.grad = torch.full((6,), 3.0)
    model[2].bias.requires_grad_(False)
    model[4].train()
    seen = []
    handle = model[0].register_forward_hook(lambda *_: seen.append(1))
    x, y = dense_data
    x.requires_grad_()
    loader = DataLoader(
        TensorDataset(x.detach(), y), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(5)
    )
    before = x.detach().clone(), y.clone(), {k: v.clone() for k, v in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    keys = [sorted(m.__dict__) for m in model.modules()]
    hooks = [(list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)) for m in model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate(), loader.generator.get_state()  # noqa: NPY002
    evaluator = CumulativeAblationEvaluator(
        model if forward == "module" else lambda x: model(x), model[0], reference=reference, n_random=4, batch_size=16
    )
    methods = {
        "conductance": LayerConductance(evaluator.forward_func, model[0]),
        "shap": partial(unit_scores, LayerGradientShap(evaluator.forward_func, model[0]), baselines=x[:5].detach()),
        "activity": LayerMeanActivity(evaluator.forward_func, model[0]),
        "ablation": LayerUnitAblation(evaluator.forward_func, model[0]),
        "mine": torch.arange(6.0),
    }
    Brittle.on = raises
    try:
        for data in (loader, (x, y)):
            if raises and reference == "zero":
                with pytest.raises(RuntimeError, match="the network is on fire"):
                    evaluator.compare(methods, data, ranking_data=loader)
            else:
                evaluator.compare(methods, data, ranking_data=loader)
    finally:
        Brittle.on = False
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert x.grad is None
    assert x.requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[2][name])
    assert [m.training for m in model.modules()] == modes
    assert [sorted(m.__dict__) for m in model.modules()] == keys
    assert hooks == [
        (list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)) for m in model.modules()
    ]
    assert torch.equal(model[0].bias.grad, torch.full((6,), 3.0))
    assert not model[2].bias.requires_grad
    assert all(p.grad is None for n, p in model.named_parameters() if n != "0.bias")
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert random.getstate() == states[2]
    assert torch.equal(loader.generator.get_state(), states[3])
    handle.remove()


def test_evaluating_twice_gives_the_same_and_keeps_nothing(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=3, reference="mean")
    before = dict(vars(evaluator))
    first = evaluator.evaluate(LayerMeanActivity(dense, "2"), dense_data)
    evaluator.evaluate(SCORES, (dense_data[0] * 3, dense_data[1]))
    same(evaluator.evaluate(LayerMeanActivity(dense, "2"), dense_data), first)
    assert vars(evaluator) == before


def test_results_do_not_share_memory_with_what_was_given(dense, dense_data):
    scores, target = SCORES.double().clone(), dense_data[1].clone()
    curve = CumulativeAblationEvaluator(dense, "2", n_random=0).evaluate(scores, (dense_data[0], target))
    kept = curve.scores.clone(), curve.target.clone()
    scores.zero_()
    target.fill_(1)
    assert torch.equal(curve.scores, kept[0])
    assert torch.equal(curve.target, kept[1])


def test_progress_is_shown_only_on_request(dense, dense_data, capsys):
    CumulativeAblationEvaluator(dense, "2", n_random=0).evaluate(SCORES, dense_data)
    assert capsys.readouterr().err == ""
    CumulativeAblationEvaluator(dense, "2", n_random=0, show_progress=True).evaluate(SCORES, dense_data)
    assert "ablating 2" in capsys.readouterr().err


def test_results_say_how_they_came_about(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", reference="mean", metric="logit", n_random=3, seed=8)
    about = evaluator.evaluate(SCORES, dense_data).provenance
    expected = {
        "layer": "2", "units": 6, "reference": "mean", "metric": "logit", "n": 60, "n_random": 3, "seed": 8,
        "ascending": True,
    }  # fmt: skip
    assert {key: about[key] for key in expected} == expected
    assert {"torch", "captum"} <= set(about["versions"])


def test_a_forward_pass_inside_no_grad_is_fine_and_gradients_still_flow(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    expected = evaluator.evaluate(LayerConductance(dense, dense[2]), dense_data)
    with torch.no_grad():
        same(evaluator.evaluate(LayerConductance(dense, dense[2]), dense_data), expected)
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_the_very_same_data_for_both_is_in_sample(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    attribution = LayerMeanActivity(dense, "2")
    assert evaluator.evaluate(attribution, dense_data, ranking_data=dense_data).in_sample
    assert evaluator.evaluate(attribution, dense_data, ranking_data=tuple(dense_data)).in_sample
    copies = tuple(part.clone() for part in dense_data)
    assert not evaluator.evaluate(attribution, dense_data, ranking_data=copies).in_sample


def test_a_comparison_can_be_pickled_and_looped_over(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=2)
    comparison = evaluator.compare({"a": torch.arange(6.0), "b": -torch.arange(6.0)}, dense_data)
    again = pickle.loads(pickle.dumps(comparison))
    assert list(again) == ["a", "b"]
    assert len(again) == 2
    assert str(again) == str(comparison)


def test_tokens_taken_for_units_are_warned_of():
    model = nn.Sequential(nn.Linear(4, 5), nn.Flatten(), nn.Linear(15, 2)).eval()
    x, y = torch.randn(8, 3, 4), torch.arange(8) % 2
    with pytest.warns(UserWarning, match=r"unit_dim=1 makes its 3 positions the units; pass unit_dim=-1 for its 5"):
        CumulativeAblationEvaluator(model, "0", n_random=0).evaluate(torch.rand(3), (x, y))
    with pytest.warns(UserWarning, match="pass unit_dim=-1"):
        LayerMeanActivity(model, "0").attribute(x, target=y)
