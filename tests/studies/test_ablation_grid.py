"""Groups of a tiled plane against plain loops: tiles, deficits with a hook, random groups, one class at a time."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from captum_ablate import CumulativeAblationEvaluator, LayerClassSelectivity, LayerMeanActivity
from captum_ablate.studies import AblationGrid, class_deficits, class_planes
from captum_ablate.studies.group_ablation import group_plan

matplotlib.use("Agg")

numbers = st.floats(-100, 100, allow_nan=False).map(lambda v: round(v, 3))


def plain_accuracy(network, layer, x, y, units):
    """Accuracy of each sample with ``units`` of ``layer`` at zero, by a hook and a full forward pass."""

    def ablate(_module, _args, output):
        output = output.clone()
        output[:, units] = 0
        return output

    handle = network.get_submodule(layer).register_forward_hook(ablate)
    with torch.no_grad():
        right = (network(x).argmax(1) == y).double()
    handle.remove()
    return right


def plain_tile(value, edges):
    """The tile of a value: the last whose lower edge is not above it."""
    inner = list(edges)[1:-1]
    return sum(bool(value >= edge) for edge in inner)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40), st.integers(1, 5), st.integers(1, 4))
def test_every_unit_lies_in_the_tile_of_its_coordinates(points, tiles, least):
    x, y = np.array(points).T
    for edges in ("width", "quantile"):
        grid = AblationGrid(x, y, tiles=tiles, edges=edges, min_units=least)
        if edges == "width":
            np.testing.assert_allclose(grid.x_edges, np.linspace(x.min(), x.max(), tiles + 1), atol=1e-9)
        else:
            np.testing.assert_allclose(grid.y_edges, np.quantile(y, np.arange(tiles + 1) / tiles), atol=1e-9)
        members = {}
        for unit in range(len(x)):
            tile = plain_tile(x[unit], grid.x_edges.tolist()), plain_tile(y[unit], grid.y_edges.tolist())
            members.setdefault(tile, []).append(unit)
        found = {(g.column, g.row): g.units.tolist() for g in grid.groups}
        assert found == {tile: units for tile, units in members.items() if len(units) >= least}
        assert int(grid.counts.sum()) == len(x)


def test_quantile_tiles_hold_about_equally_many_units_along_each_axis():
    x, y = torch.rand(100) ** 4, torch.randn(100)
    counts = AblationGrid(x, y, tiles=4, edges="quantile").counts
    assert counts.sum(1).tolist() == [25] * 4
    assert counts.sum(0).tolist() == [25] * 4


def test_a_unit_with_a_nan_coordinate_lies_in_no_tile_and_no_random_group(digits_net, small_digits):
    x = torch.tensor([0.0, torch.nan, 1.0, 1.0, 2.0, *[torch.nan] * 19])
    grid = AblationGrid(x, torch.zeros(24), tiles=2, min_units=1)
    assert [g.units.tolist() for g in grid.groups] == [[0], [2, 3, 4]]
    frame = grid.to_frame()
    assert frame["group"].tolist() == [0, -1, 1, 1, 1, *[-1] * 19]
    assert frame["column"].tolist()[:5] == [0, -1, 1, 1, 1]
    plan = group_plan(grid, 10, seed=0)
    assert all(set(chain.order.tolist()) <= {0, 2, 3, 4} for chain in plan.chains)


def test_group_deficits_equal_a_plain_hook_class_by_class(digits_net, small_digits):
    x, y = small_digits
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3", batch_size=31)
    grid = AblationGrid.of(evaluator, (x, y), tiles=3, min_units=2)
    found = grid.deficits(evaluator, (x, y), n_random=3)
    intact = plain_accuracy(digits_net, "relu3", x, y, [])
    for g, group in enumerate(grid.groups):
        lost = intact - plain_accuracy(digits_net, "relu3", x, y, group.units.tolist())
        for c in range(10):
            own = lost[y == c].numpy()
            assert float(found.deficit[c, g]) == pytest.approx(own.mean(), abs=1e-6)
            half = stats.t.ppf(0.975, len(own) - 1) * own.std(ddof=1) / np.sqrt(len(own))
            assert float(found.deficit_low[c, g]) == pytest.approx(own.mean() - half, abs=1e-6)
            assert float(found.deficit_high[c, g]) == pytest.approx(own.mean() + half, abs=1e-6)
    assert found.n.tolist() == [int((y == c).sum()) for c in range(10)]
    np.testing.assert_allclose(found.intact, [float(intact[y == c].mean()) for c in range(10)])
    assert float(found.deficit.abs().max()) > 0.05


def test_random_groups_have_the_size_of_the_group_and_give_its_excess(digits_net, small_digits):
    x, y = small_digits
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3", seed=5)
    grid = AblationGrid.of(evaluator, (x, y), tiles=2, min_units=2)
    found = grid.deficits(evaluator, (x, y), n_random=4)
    plan = group_plan(grid, 4, seed=5)
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


def test_the_default_plane_is_selectivity_against_mean_activity_without_dead_units(digits_net, small_digits):
    x, y = small_digits
    with torch.no_grad():
        network = nn.Sequential(*digits_net, nn.Identity())
    dead = (digits_net[:8](x) == 0).all(0)
    assert bool(dead.any()), "this net should have dead units to test with"
    evaluator = CumulativeAblationEvaluator(network, "7")
    grid = AblationGrid.of(evaluator, (x, y))
    alive = ~dead
    assert torch.equal(grid.inside, alive)
    torch.testing.assert_close(grid.x[alive], LayerClassSelectivity(network, "7").attribute(x, target=y)[alive])
    torch.testing.assert_close(grid.y[alive], LayerMeanActivity(network, "7").attribute(x, target=y)[alive])


def test_class_planes_ablate_each_class_on_its_own_samples(digits_net, small_digits):
    x, y = small_digits
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3", batch_size=40)
    planes = class_planes(evaluator, (x, y), tiles=2, min_units=2)
    assert list(planes) == list(range(10))
    selectivity = LayerClassSelectivity(digits_net, "relu3").attribute(x, target=y, per_class=True)
    torch.testing.assert_close(planes[3].x[planes[3].inside], selectivity[3][planes[3].inside])
    found = class_deficits(planes, evaluator, (x, y), n_random=2)
    own = y == 3
    intact = plain_accuracy(digits_net, "relu3", x[own], y[own], [])
    for g, group in enumerate(planes[3].groups):
        lost = intact - plain_accuracy(digits_net, "relu3", x[own], y[own], group.units.tolist())
        assert float(found.by_class[3].deficit[0, g]) == pytest.approx(float(lost.mean()), abs=1e-6)
    frame = found.to_frame()
    assert set(frame["class"]) == set(range(10))
    rows = frame[frame["class"] == 3]
    assert rows["n_units"].tolist() == [len(g.units) for g in planes[3].groups]
    assert rows["selectivity"].tolist() == pytest.approx([float(planes[3].x[g.units].mean()) for g in planes[3].groups])


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
    assert f"{float(found.excess[:, 0].mean()):+.3f}\n{len(first.units)} units" in written
    assert "class 4" in [text.get_text() for text in found.plot(4).texts]
    assert (
        grid.plot()
        .get_title(loc="left")
        .startswith("24 units" if grid.inside.all() else f"{int(grid.inside.sum())} units")
    )
    planes = class_planes(evaluator, small_digits, tiles=2)
    assert "10 classes" in class_deficits(planes, evaluator, small_digits, n_random=1).plot().texts[-1].get_text()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([0, 1], [0, 1, 2]), {}, "x and y must have one value for each unit; got 2 and 3"),
        (([[0, 1]], [0, 1]), {}, r"x must have one value for each unit, \[units\]; got shape \(1, 2\)"),
        (([0, np.inf], [0, 1]), {}, "x must be finite, or NaN"),
        (([np.nan, 1], [0, np.nan]), {}, "no unit has two finite coordinates"),
        (([0, 1], [0, 1]), {"tiles": 0}, "tiles must be an int of at least 1; got 0"),
        (([0, 1], [0, 1]), {"min_units": 1.5}, "min_units must be an int of at least 1; got 1.5"),
        (([0, 1], [0, 1]), {"edges": "mass"}, """edges must be "width" or "quantile"; got 'mass'"""),
    ],
)
def test_a_bad_grid_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        AblationGrid(*arguments, **options)


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
    several = CumulativeAblationEvaluator(digits_net, ["relu2", "relu3"])
    with pytest.raises(ValueError, match="a plane holds the units of one layer, and the evaluator has 2"):
        AblationGrid.of(several, small_digits)
    planes = class_planes(evaluator, small_digits, min_units=30)
    with pytest.raises(ValueError, match="no class has both samples and groups"):
        class_deficits(planes, evaluator, small_digits)


def test_negative_activity_warns_that_the_plane_is_for_outputs_of_an_activation_function(digits_net, small_digits):
    with pytest.warns(UserWarning, match="negative mean activity in some class"):
        AblationGrid.of(CumulativeAblationEvaluator(digits_net, "conv2"), small_digits)
