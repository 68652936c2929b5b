"""Units that equal their reference wherever the ranking data look stay out of all orders, and are counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from captum_ablate import Comparison, CumulativeAblationEvaluator, LayerMeanActivity, LayerUnitAblation
from captum_ablate.ablation import LiveUnits, Site
from captum_ablate.inputs.units import UnitAxis


class Gated(nn.Module):
    """Eight units after a ReLU; those of ``dead`` are shifted so that no sample reaches them."""

    def __init__(self, dead):
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(5, 8), nn.ReLU())
        self.head = nn.Linear(8, 3)
        with torch.no_grad():
            self.layer[0].bias[list(dead)] = -1e4

    def forward(self, x):
        return self.head(self.layer(x))


@pytest.fixture
def gated():
    """A net with units 1, 4 and 6 dead, data to evaluate on and data to rank on."""
    model = Gated([1, 4, 6]).eval()
    rank = torch.randn(40, 5), torch.arange(40) % 3
    return model, (torch.randn(50, 5), torch.arange(50) % 3), rank


def compared(model, data, rank, methods=None, **options):
    evaluator = CumulativeAblationEvaluator(model, "layer", metric="logit", **{"n_random": 6, "steps": None, **options})
    return evaluator.compare(methods or {"mine": torch.arange(8.0)}, data, ranking_data=rank)


def test_dead_units_stand_in_no_order_and_are_counted(gated):
    comparison = compared(*gated, {"mine": torch.arange(8.0), "activity": LayerMeanActivity(gated[0], "layer")})
    curve = comparison["mine"]
    assert curve.order.tolist() == [7, 5, 3, 2, 0]
    assert curve.scores.shape == (8,)
    assert curve.n_ablated.tolist() == [0, 1, 2, 3, 4, 5]
    assert float(curve.fraction[-1]) == 1
    assert (comparison.provenance.units, comparison.provenance.dead, comparison.provenance.woken) == (8, 3, 0)
    assert "(8 units, 3 dead and left out, zero reference" in comparison.setting
    assert set(comparison["activity"].order.tolist()) == {0, 2, 3, 5, 7}


def test_leaving_them_out_equals_a_net_without_them(gated):
    model, data, rank = gated
    live = [0, 2, 3, 5, 7]
    small = Gated([]).eval()
    small.layer[0], small.head = nn.Linear(5, 5), nn.Linear(5, 3)
    with torch.no_grad():
        small.layer[0].weight[:], small.layer[0].bias[:] = model.layer[0].weight[live], model.layer[0].bias[live]
        small.head.weight[:], small.head.bias[:] = model.head.weight[:, live], model.head.bias
    one = compared(model, data, rank, n_random=0)["mine"]
    other = compared(small, data, rank, {"mine": torch.arange(8.0)[live]}, n_random=0)["mine"]
    torch.testing.assert_close(one.values, other.values, rtol=0, atol=1e-5)
    assert one.gap == pytest.approx(other.gap, abs=1e-6)


def test_knowing_only_the_dead_earns_nothing(gated):
    model, data, rank = gated
    scores = torch.rand(8) + 10
    scores[[1, 4, 6]] = 0
    with_dead = compared(model, data, rank, {"alive": scores}, live_units_only=False)
    assert with_dead.provenance.dead == 0
    assert len(with_dead["alive"].order) == 8
    assert set(compared(model, data, rank, {"alive": scores})["alive"].order.tolist()) == {0, 2, 3, 5, 7}


def test_units_that_live_in_the_evaluation_data_alone_are_told(gated):
    model, (x, y), rank = gated
    with torch.no_grad():
        model.layer[0].weight[4] = 0
        model.layer[0].weight[4, 0] = 1
        model.layer[0].bias[4] = -100
    x = x.clone()
    x[7, 0] = 300
    comparison = compared(model, (x, y), rank)
    assert (comparison.provenance.dead, comparison.provenance.woken) == (3, 1)
    assert "3 dead and left out (1 of them live in the evaluation data)" in comparison.setting


@pytest.mark.execution("closed form")
@pytest.mark.parametrize(("tail", "execution"), [(nn.Identity(), "closed form"), (nn.Tanh(), "graph")])
def test_units_that_woke_stay_as_they_are_in_every_execution(gated, tail, execution):
    """A unit that was left out, but lives in the evaluation data, is kept at every step."""
    model, (x, y), rank = gated
    model.head = nn.Sequential(model.head, tail)
    with torch.no_grad():
        model.layer[0].weight[4] = 0
        model.layer[0].weight[4, 0], model.layer[0].bias[4] = 1, -100
    x = x.clone()
    x[:, 0] = 101 + x[:, 1].abs()
    curve = compared(model, (x, y), rank)["mine"]
    assert curve.engine.startswith(execution)
    assert curve.provenance.woken == 1
    for order, values in ((curve.order, curve.values), (curve.order.flip(0), curve.ascending_values)):
        for count, found in zip(curve.n_ablated.tolist(), values, strict=True):
            with torch.no_grad():
                hidden = model.layer(x)
                hidden[:, order[:count]] = 0
                expected = model.head(hidden).gather(1, y[:, None]).squeeze(1)
            torch.testing.assert_close(found, expected.double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("reference", ["zero", "mean", "resample"])
def test_an_estimate_from_one_sample_does_not_take_units_for_dead(gated, reference):
    model, data, (x, y) = gated
    evaluator = CumulativeAblationEvaluator(model, "layer", metric="logit", reference=reference, n_random=2)
    ranking_data = list(zip(x.split(1), y.split(1), strict=True))
    assert evaluator.estimate({"mine": torch.arange(8.0)}, data, ranking_data=ranking_data).masks > 0


def test_fewer_than_two_live_units_are_refused():
    model = Gated(range(1, 8)).eval()
    with pytest.raises(ValueError, match=r"only 1 of 8 units of 'layer' ever differ.*live_units_only=False"):
        compared(model, (torch.randn(20, 5), torch.arange(20) % 3), (torch.randn(20, 5) * 9, torch.arange(20) % 3))


def live_of(reference, parts, axis=None, masks=None, targets=None):
    site = Site(nn.Identity(), "layer", axis or UnitAxis())
    live = LiveUnits(reference, site)
    for k, part in enumerate(parts):
        live.add(part, None if masks is None else masks[k], None if targets is None else targets[k])
    return live.mask(site.axis.count(parts[0].shape)).tolist()


def test_zero_asks_for_a_value_at_any_sample_and_position():
    a = torch.zeros(4, 3, 2)
    a[3, 1, 1] = -0.5
    assert live_of("zero", a.split(2)) == [False, True, False]


def test_mean_asks_for_two_values_not_for_a_sum():
    a = torch.full((10, 3, 2), 0.1)
    a[:, 1] = torch.rand(10, 2)
    a[9, 2, 1] = 0.1 + 1e-6
    assert live_of("mean", a.split(3)) == [False, True, True]


def test_resample_asks_for_two_values_at_one_position():
    a = torch.arange(6.0).reshape(1, 3, 2).repeat(5, 1, 1)  # differs between positions, not between samples
    a[4, 2, 0] += 1
    assert live_of("resample", a.split(2)) == [False, False, True]
    assert live_of("mean", a.split(2)) == [True, True, True]


def test_a_tensor_and_a_function_are_compared_themselves():
    a = torch.ones(4, 3)
    a[2, 1] = 2
    assert live_of(torch.tensor([1.0, 1.0, 5.0]), a.split(2)) == [False, True, True]
    assert live_of(lambda activation, target: torch.ones_like(activation), a.split(2)) == [False, True, False]
    assert live_of(lambda activation, target: torch.rand_like(activation), a.split(2)) == [True] * 3


def test_a_group_lives_if_one_of_its_members_does():
    a = torch.zeros(4, 4)
    a[1, 3] = 1
    axis = UnitAxis.of(1, torch.tensor([0, 0, 1, 1]))
    assert live_of("zero", [a], axis) == [False, True]
    a[:, 0] = 5  # constant, but not as its neighbour in the group
    assert live_of("mean", [a], axis) == [True, True]


def test_padding_does_not_count():
    a = torch.zeros(2, 3, 4)  # [n, tokens, units]
    a[0, 2, 1], a[1, 0, 2] = 1, 1
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert live_of("zero", [a], UnitAxis.of(-1), [mask]) == [False, False, True, False]


@pytest.mark.parametrize("reference", ["mean", "resample", torch.zeros(8), lambda a, _: torch.zeros_like(a)])
def test_every_reference_leaves_out_the_units_that_equal_it(gated, reference):
    curve = compared(*gated, reference=reference)["mine"]
    assert set(curve.order.tolist()) == {0, 2, 3, 5, 7}


def test_of_several_layers_only_the_first_that_runs_leaves_units_out():
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    with torch.no_grad():
        model[0].bias[2], model[2].bias[1] = -1e4, -1e4
    data, rank = (torch.randn(30, 5), torch.arange(30) % 3), (torch.randn(30, 5), torch.arange(30) % 3)
    for layers, dead in ((["1", "3"], 2), (["3", "1"], 4 + 2)):
        evaluator = CumulativeAblationEvaluator(model, layers, metric="logit", steps=None, n_random=2)
        curve = evaluator.evaluate(torch.arange(10.0), data, ranking_data=rank)
        assert sorted(curve.order.tolist()) == [u for u in range(10) if u != dead]
        assert curve.provenance.dead == 1


def test_what_is_measured_of_the_live_is_what_a_plain_loop_measures(gated):
    model, data, rank = gated
    curve = compared(model, data, rank, {"measured": LayerUnitAblation(model, "layer", metric="logit")})["measured"]
    x, y = data
    with torch.no_grad():
        for count, found in zip(curve.n_ablated.tolist(), curve.score.tolist(), strict=True):
            hidden = model.layer(x)
            hidden[:, curve.order[:count]] = 0
            expected = model.head(hidden).gather(1, y[:, None]).mean()
            assert found == pytest.approx(float(expected), abs=1e-5)


def test_dead_units_survive_saving(gated, tmp_path):
    comparison = compared(*gated)
    assert Comparison.load(comparison.save(tmp_path)).provenance == comparison.provenance
    assert np.isfinite(comparison.leaderboard["gap"]).all()
