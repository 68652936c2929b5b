"""Planes of a layer, over all classes and for each: the coordinates of its units, and the samples of each class."""

from __future__ import annotations

import matplotlib
import pytest
import torch
from plain_ablation import plain_accuracy
from torch import nn

from captum_ablate import CumulativeAblationEvaluator, LayerClassSelectivity, LayerMeanActivity
from captum_ablate.studies import AblationGrid, class_deficits, class_planes

matplotlib.use("Agg")


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
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3")
    planes = class_planes(evaluator, (x, y), tiles=2, min_units=2, batch_size=40)
    assert list(planes) == list(range(10))
    selectivity = LayerClassSelectivity(digits_net, "relu3").attribute(x, target=y, per_class=True)
    torch.testing.assert_close(planes[3].x[planes[3].inside], selectivity[3][planes[3].inside])
    found = class_deficits(planes, evaluator, (x, y), n_random=2, batch_size=40)
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


def test_the_plot_of_the_classes_says_how_many_there_are(digits_net, small_digits):
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3")
    planes = class_planes(evaluator, small_digits, tiles=2)
    assert "10 classes" in class_deficits(planes, evaluator, small_digits, n_random=1).plot().texts[-1].get_text()


def test_several_layers_or_classes_without_groups_are_refused(digits_net, small_digits):
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3")
    several = CumulativeAblationEvaluator(digits_net, ["relu2", "relu3"])
    with pytest.raises(ValueError, match="a plane holds the units of one layer, and the evaluator has 2"):
        AblationGrid.of(several, small_digits)
    planes = class_planes(evaluator, small_digits, min_units=30)
    with pytest.raises(ValueError, match="no class has both samples and groups"):
        class_deficits(planes, evaluator, small_digits)


def test_negative_activity_warns_that_the_plane_is_for_outputs_of_an_activation_function(digits_net, small_digits):
    with pytest.warns(UserWarning, match="negative mean activity in some class"):
        AblationGrid.of(CumulativeAblationEvaluator(digits_net, "conv2"), small_digits)
