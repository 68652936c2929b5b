"""What groups of a plane cost, against plain loops with a hook; random groups, one class at a time."""

from __future__ import annotations

import matplotlib
import numpy as np
import oracles
import pytest
import torch
from plain_ablation import plain_accuracy
from torch import nn

from captum_ablate import CumulativeAblationEvaluator
from captum_ablate.inputs.wording import counted
from captum_ablate.studies import AblationGrid
from captum_ablate.studies.group_deficits import group_plan

matplotlib.use("Agg")


def plan_of(grid, n_random, seed):
    """The masks of ``grid.deficits``: those of its groups, then those of the random orders."""
    groups, pool = [g.units for g in grid.groups], grid.inside.nonzero().flatten()
    return group_plan(groups, pool, len(grid.x), n_random=n_random, seed=seed)


def test_random_groups_hold_no_unit_outside_the_plane():
    x = torch.tensor([0.0, torch.nan, 1.0, 1.0, 2.0, *[torch.nan] * 19])
    grid = AblationGrid(x, torch.zeros(24), tiles=2, min_units=1)
    plan = plan_of(grid, 10, seed=0)
    assert all(set(chain.order.tolist()) <= {0, 2, 3, 4} for chain in plan.chains)


def test_group_deficits_equal_a_plain_hook_class_by_class(digits_net, small_digits):
    x, y = small_digits
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3")
    grid = AblationGrid.of(evaluator, (x, y), tiles=3, min_units=2)
    found = grid.deficits(evaluator, (x, y), n_random=3, batch_size=31)
    intact = plain_accuracy(digits_net, "relu3", x, y, [])
    for g, group in enumerate(grid.groups):
        lost = intact - plain_accuracy(digits_net, "relu3", x, y, group.units.tolist())
        for c in range(10):
            own = lost[y == c].numpy()
            assert float(found.deficit[c, g]) == pytest.approx(own.mean(), abs=1e-6)
            low, high = oracles.bounded_interval(own, 1)
            assert float(found.deficit_low[c, g]) == pytest.approx(low, abs=1e-6)
            assert float(found.deficit_high[c, g]) == pytest.approx(high, abs=1e-6)
    assert found.n.tolist() == [int((y == c).sum()) for c in range(10)]
    np.testing.assert_allclose(found.intact, [float(intact[y == c].mean()) for c in range(10)])
    assert float(found.deficit.abs().max()) > 0.05


def test_random_groups_have_the_size_of_the_group_and_give_its_excess(digits_net, small_digits):
    x, y = small_digits
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3", seed=5)
    grid = AblationGrid.of(evaluator, (x, y), tiles=2, min_units=2)
    found = grid.deficits(evaluator, (x, y), n_random=4)
    plan = plan_of(grid, 4, seed=5)
    intact = plain_accuracy(digits_net, "relu3", x, y, [])
    for g, group in enumerate(grid.groups):
        orders = [chain.order[: len(group.units)].tolist() for chain in plan.chains[-4:]]
        assert len({tuple(sorted(units)) for units in orders}) > 1
        lost = torch.stack([intact - plain_accuracy(digits_net, "relu3", x, y, units) for units in orders])
        for c in (0, 7):
            by_order = lost[:, y == c].mean(dim=1)
            assert float(found.random[c, g]) == pytest.approx(float(by_order.mean()), abs=1e-6)
            assert float(found.random_sd[c, g]) == pytest.approx(float(by_order.std()), abs=1e-6)
            assert float(found.excess[c, g]) == pytest.approx(
                float(found.deficit[c, g]) - float(by_order.mean()), abs=1e-6
            )
            assert found.excess_low[c, g] <= found.excess[c, g] + 1e-9 <= found.excess_high[c, g] + 2e-9


def test_the_group_of_all_units_is_no_better_than_itself(digits_net, small_digits):
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3")
    grid = AblationGrid(torch.rand(24), torch.rand(24), tiles=1)
    found = grid.deficits(evaluator, small_digits, n_random=2)
    np.testing.assert_allclose(found.excess, np.zeros((10, 1)), atol=1e-12)
    assert float(found.deficit.max()) > 0.5


def test_units_that_carry_a_class_alone_cost_that_class_alone():
    """Class c is read from units 3c, 3c + 1 and 3c + 2: by closed form, a group of them costs its class all."""
    network = nn.Sequential(nn.Identity(), nn.Linear(9, 3, bias=False)).eval()
    with torch.no_grad():
        network[1].weight.copy_(torch.kron(torch.eye(3), torch.ones(1, 3)))
    y = torch.arange(60) % 3
    x = torch.nn.functional.one_hot(y, 3).float().repeat_interleave(3, dim=1)
    evaluator = CumulativeAblationEvaluator(network, "0", metric="logit")
    groups = torch.arange(9).double() // 3
    found = AblationGrid(groups, torch.zeros(9), tiles=3).deficits(evaluator, (x, y), n_random=50)
    np.testing.assert_allclose(found.deficit, 3 * np.eye(3), atol=1e-6)
    np.testing.assert_allclose(found.random.mean(), 1, atol=0.2)  # 3 of 9 units at random: one of one's own on average


def test_the_mean_reference_learns_from_the_ranking_data(dense, dense_data):
    x, y = dense_data
    mean = dense[:2](x[:30]).mean(0).detach()
    grid = AblationGrid(torch.rand(7), torch.rand(7), tiles=2, min_units=1)
    by_name = CumulativeAblationEvaluator(dense, "1", reference="mean", metric="logit")
    by_value = CumulativeAblationEvaluator(dense, "1", reference=mean, metric="logit")
    learned = grid.deficits(by_name, (x[30:], y[30:]), ranking_data=(x[:30], y[:30]))
    given_ = grid.deficits(by_value, (x[30:], y[30:]))
    np.testing.assert_allclose(learned.deficit, given_.deficit, atol=1e-6)
    in_sample = grid.deficits(by_name, (x[30:], y[30:]))
    assert float((in_sample.deficit - learned.deficit).abs().max()) > 1e-4


def test_a_layer_mask_makes_groups_the_units(digits_net, small_digits):
    x, y = small_digits
    pairs = torch.arange(24) // 2
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3", layer_mask=pairs)
    grid = AblationGrid.of(evaluator, (x, y), tiles=1)
    assert len(grid.x) == 12
    found = AblationGrid(torch.arange(12), torch.zeros(12), tiles=12, min_units=1).deficits(evaluator, (x, y))
    intact = plain_accuracy(digits_net, "relu3", x, y, [])
    lost = intact - plain_accuracy(digits_net, "relu3", x, y, [4, 5])
    assert float((found.deficit[:, 2] * found.n).sum() / len(y)) == pytest.approx(float(lost.mean()), abs=1e-6)


def test_the_model_and_the_random_state_are_left_as_they_were(digits_net, small_digits):
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3")
    before = torch.get_rng_state()
    AblationGrid.of(evaluator, small_digits).deficits(evaluator, small_digits, n_random=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert not digits_net.relu3._forward_hooks
    assert not digits_net.training


def test_the_result_says_what_was_ablated(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "1", reference="mean", metric="logit", seed=7)
    found = AblationGrid(torch.rand(7), torch.rand(7), tiles=1).deficits(evaluator, dense_data, n_random=3)
    assert (found.layer, found.reference, found.metric, found.seed, found.n_random) == ("1", "mean", "logit", 7, 3)
    assert found.engine


def test_frames_and_plots_show_every_class_and_group(digits_net, small_digits):
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3")
    grid = AblationGrid.of(evaluator, small_digits, tiles=3, min_units=1)
    found = grid.deficits(evaluator, small_digits, n_random=2)
    frame = found.to_frame()
    assert len(frame) == 10 * len(grid.groups)
    assert list(frame.columns[:7]) == ["class", "group", "column", "row", "n_units", "selectivity", "mean_activity"]
    ax = found.plot()
    assert ax.get_xlabel() == "selectivity"
    assert ax.get_ylabel() == "mean activity"
    written = [text.get_text() for text in ax.texts]
    first = grid.groups[0]
    assert f"{float(found.excess[:, 0].mean()):+.3f}\n{counted(len(first.units), 'unit')}" in written
    assert "class 4" in [text.get_text() for text in found.plot(4).texts]


def test_a_grid_of_another_layer_or_without_groups_is_refused(digits_net, small_digits):
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3")
    with pytest.raises(ValueError, match="the grid has 5 units, and 'relu3' has 24"):
        AblationGrid(torch.rand(5), torch.rand(5), tiles=1).deficits(evaluator, small_digits)
    with pytest.raises(ValueError, match="no tile has 30 units"):
        AblationGrid(torch.rand(24), torch.rand(24), min_units=30).deficits(evaluator, small_digits)
    with pytest.raises(ValueError, match="n_random must be an int of at least 1; got 0"):
        AblationGrid(torch.rand(24), torch.rand(24), tiles=1).deficits(evaluator, small_digits, n_random=0)
    with pytest.raises(ValueError, match=r"there is no class 11; the classes are \[0, 1"):
        AblationGrid(torch.rand(24), torch.rand(24), tiles=1).deficits(evaluator, small_digits, n_random=1).plot(11)
