"""Division of labour: counts by hand, and the network where it follows from the architecture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from captum.attr import LayerConductance, LayerGradientXActivation
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from captum_ablate.studies import division_of_labour, labour_of, plot_labour


def test_shares_as_counted_by_hand():
    scores = torch.tensor([[1.0, -1.0, 0.0, 2.0], [3.0, 1.0, 0.0, -2.0], [0.0, -4.0, 0.0, 0.1], [2.0, -1.0, 0.0, -9.0]])
    found = labour_of(scores)
    assert found.positive.tolist() == [3, 1, 0, 2]
    assert found.negative.tolist() == [0, 3, 0, 2]
    assert found.uses.tolist() == [3, 4, 0, 4]
    torch.testing.assert_close(found.share, torch.tensor([1.0, 0.75, math.nan, 0.5]), equal_nan=True)
    assert found.sign.tolist() == [1, -1, 0, 0]
    assert found.median() == 0.75
    assert found.median(at_least=4) == 0.625
    assert math.isnan(found.median(at_least=5))
    assert labour_of(scores, tolerance=0.5).positive.tolist() == [3, 1, 0, 1]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=20))
def test_shares_do_not_know_which_side_is_which(rows):
    scores = torch.tensor(rows)
    one, other = labour_of(scores), labour_of(-scores)
    torch.testing.assert_close(one.share, other.share, equal_nan=True)
    assert torch.equal(one.sign, -other.sign)
    used = one.share[one.uses > 0]
    assert bool(((used >= 0.5) & (used <= 1)).all())
    assert bool((one.uses <= len(rows)).all())


def test_before_a_linear_output_every_unit_speaks_for_one_side(digits_net, small_digits):
    attribution = LayerGradientXActivation(digits_net, digits_net.relu3)
    found = division_of_labour(attribution, small_digits, target=3)
    assert set(found.shares().tolist()) == {1.0}
    signs = torch.sign(digits_net.fc2.weight[3]).long()
    used = found.uses > 0
    assert torch.equal(found.sign[used], signs[used])


def test_earlier_layers_mix_sides(digits_net, small_digits):
    attribution = LayerConductance(digits_net, digits_net.relu1)
    found = division_of_labour(attribution, small_digits, target=3, n_steps=5)
    assert found.n == 90
    assert found.median() < 1


def test_two_units_that_only_help_each_other_are_told_apart_from_one_that_does_not():
    net = nn.Sequential(nn.Identity(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    x = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, 1.0]])
    found = division_of_labour(LayerGradientXActivation(net, net[0]), (x, [0, 0, 0]), target=0)
    assert found.positive.tolist() == [2, 0]
    assert found.negative.tolist() == [1, 0]


def test_frames_and_plots_show_every_unit():
    found = labour_of(torch.randn(30, 7), name="mine")
    frame = found.to_frame()
    assert list(frame.columns) == ["method", "unit", "positive", "negative", "share", "sign"]
    assert len(frame) == 7
    axes = plot_labour({"a": found})
    drawn = sum(float(np.abs(np.diff(p.get_xy()[:, 1])).sum()) for p in axes.patches[:1])
    assert drawn > 0
    assert found.plot(axes) is axes
    assert "'mine': median share" in repr(found)


def test_mistakes_are_told(digits_net, small_digits):
    attribution = LayerGradientXActivation(digits_net, digits_net.relu3)
    with pytest.raises(TypeError, match="one output for all samples; got 'label'"):
        division_of_labour(attribution, small_digits, target="label")
    with pytest.raises(ValueError, match=r"scores must be \[n, units\]; got \(3,\)"):
        labour_of(torch.zeros(3))
    with pytest.raises(ValueError, match="tolerance must be 0 or more; got -1"):
        labour_of(torch.zeros(3, 2), tolerance=-1)
    with pytest.raises(ValueError, match="at_least must be 1 or more"):
        labour_of(torch.zeros(3, 2)).median(at_least=0)
