"""Laws of ablation: what changes nothing, what permutes, and what ablating nothing or everything must give."""

from __future__ import annotations

import oracles
import pytest
import torch
from captum.attr import LayerConductance
from curve_checks import SCORES, close, same
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_ablate import CumulativeAblationEvaluator, LayerMeanActivity, LayerUnitAblation


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
    evaluator = CumulativeAblationEvaluator(
        dense, "2", reference=lambda a, _: a, metric="logit", n_random=2, live_units_only=False
    )
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
        evaluator = CumulativeAblationEvaluator(dense, "2", reference=reference, metric="margin", n_random=1, steps=3)
        return evaluator.evaluate(LayerMeanActivity(dense, "2"), data, ranking_data=rank, batch_size=batch_size)

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
    assert other.z == pytest.approx(curve.z, rel=1e-5)
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
