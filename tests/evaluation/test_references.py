"""The curve of every reference is that of a plain hook and a full forward pass for each step."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from curve_checks import METRICS, SCORES, both_directions, check, close, half, name_of, same, squared_error, unit_mean
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from captum_ablate import CumulativeAblationEvaluator


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
    evaluator = CumulativeAblationEvaluator(dense, layer, reference=option, metric=metric, steps=None, n_random=0)
    curve = evaluator.evaluate(scores, (x, y), ranking_data=rank, batch_size=25)
    assert curve.order.tolist() == scores.argsort(descending=True).tolist()
    check(dense, module, x, y, curve, replacement, metric)


@pytest.mark.parametrize("reference", ["zero", "mean"])
@pytest.mark.parametrize(("layer", "unit_dim"), [("conv1", 1), ("relu1", -3), ("conv2", None), ("conv2", -1)])
def test_a_curve_of_channels_positions_or_elements(digits_net, digits, small_digits, layer, unit_dim, reference):
    (x, y), rank = small_digits, (digits[0][1300:1350], digits[1][1300:1350])
    x, y, module = x[:30], y[:30], digits_net.get_submodule(layer)
    means = unit_mean(digits_net, module, rank[0], unit_dim)
    evaluator = CumulativeAblationEvaluator(
        digits_net, layer, reference=reference, metric="logit", steps=4, n_random=0, unit_dim=unit_dim
    )
    units = 64 if unit_dim is None else {"conv1": 8, "relu1": 8, "conv2": 2}[layer]
    curve = evaluator.evaluate(torch.randn(units), (x, y), ranking_data=rank, batch_size=20)
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
    evaluator = CumulativeAblationEvaluator(model, "1", reference=reference, metric=metric, steps=steps, n_random=2)
    curve = evaluator.evaluate(torch.randn(units), (x, y), batch_size=batch_size)
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


def donors_of(evaluator, methods, data, rank, **call):
    """The donor of each sample, read from the last step, ``{method: [n]}``; and the comparison."""
    comparison = evaluator.compare(methods, data, ranking_data=rank, **call)
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
            steps=2, n_random=0, seed=4,
        )  # fmt: skip
        assert donors_of(evaluator, methods, data, rank, batch_size=batch_size)[0]["a"] == donors
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
        dense, layer, reference="resample", metric=metric, steps=3, n_random=0, seed=2
    )
    scores = torch.randn(7 if layer == "0" else 6)
    curve = evaluator.evaluate(scores, (x, y), ranking_data=(rank, torch.arange(20) % 3), batch_size=17)
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
