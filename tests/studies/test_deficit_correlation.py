"""Correlation of scores with measured drops: exact where the output is linear, and a slow loop elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerActivation, LayerConductance, LayerFeatureAblation, LayerGradientXActivation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from captum_ablate.studies import deficit_correlation, plot_correlations, sample_scores, spearman_rows, unit_drops


def slow_drops(model, layer, x, y):
    """The logit of the label minus that with a unit set to zero, one image and one unit at a time."""
    rows = []
    for image, label in zip(x, y.tolist(), strict=True):
        with torch.no_grad():
            intact = float(model(image[None])[0, label])
            units = _output(model, layer, image).shape[1]
        row = []
        for u in range(units):
            handle = layer.register_forward_hook(lambda _, __, output, u=u: _zeroed(output, u))
            with torch.no_grad():
                row.append(intact - float(model(image[None])[0, label]))
            handle.remove()
        rows.append(row)
    return np.array(rows)


def _zeroed(output, unit):
    output = output.clone()
    output[:, unit] = 0
    return output


def _output(model, layer, image):
    seen = []
    handle = layer.register_forward_hook(lambda _, __, output: seen.append(output))
    model(image[None])
    handle.remove()
    return seen[0]


def test_behind_the_layer_all_is_linear_so_gradient_times_activation_is_the_drop(digits_net, small_digits):
    attribution = LayerGradientXActivation(digits_net, digits_net.relu3)
    found = deficit_correlation(attribution, small_digits)
    torch.testing.assert_close(found.scores, found.drops, atol=1e-4, rtol=1e-4)
    # ties of dead units, exact in one and rounded in the other, keep it just below 1
    assert found.mean > 0.97


def test_scores_turned_round_correlate_with_the_opposite_sign():
    net = nn.Sequential(nn.Identity(), nn.Linear(6, 2)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([-torch.ones(6), torch.ones(6)]))
    x = torch.rand(8, 6) + 0.1
    down, up = (deficit_correlation(LayerActivation(net, net[0]), (x, torch.full((8,), c))) for c in (0, 1))
    torch.testing.assert_close(down.values, torch.full((8,), -1.0, dtype=torch.float64))
    torch.testing.assert_close(up.values, torch.ones(8, dtype=torch.float64))
    assert up.interval.low == pytest.approx(1)


@pytest.mark.parametrize("layer", ["relu1", "conv2"])
def test_correlation_equals_a_loop_over_images(digits_net, small_digits, layer):
    x, y = small_digits[0][:8], small_digits[1][:8]
    module = digits_net.get_submodule(layer)
    found = deficit_correlation(LayerConductance(digits_net, module), (x, y), n_steps=6, batch_size=3)
    drops = slow_drops(digits_net, module, x, y)
    np.testing.assert_allclose(found.drops.numpy(), drops, atol=1e-4)
    for i in range(8):
        scores = LayerConductance(digits_net, module).attribute(x[i : i + 1], target=int(y[i]), n_steps=6)
        expected = stats.spearmanr(scores.detach().flatten(2).sum(2)[0], drops[i]).statistic
        assert float(found.values[i]) == pytest.approx(expected, abs=1e-3)


def test_drops_are_those_of_captum_ablating_whole_channels(digits_net, small_digits):
    x, y = small_digits[0][:10], small_digits[1][:10]
    captum = sample_scores(LayerFeatureAblation(digits_net, digits_net.relu2), (x, y), positions="mean")
    torch.testing.assert_close(unit_drops(digits_net, "relu2", (x, y)), captum, atol=1e-4, rtol=1e-3)


def test_drops_can_be_measured_once_for_all_attributions(digits_net, small_digits):
    x, y = small_digits[0][:10], small_digits[1][:10]
    drops = unit_drops(digits_net, digits_net.relu2, (x, y), metric="margin", reference="mean")
    attribution = LayerActivation(digits_net, digits_net.relu2)
    known = deficit_correlation(attribution, (x, y), metric="margin", reference="mean", drops=drops)
    again = deficit_correlation(attribution, (x, y), metric="margin", reference="mean")
    assert torch.equal(known.values, again.values)
    assert known.metric == "margin"
    with pytest.raises(ValueError, match=r"one value per sample and unit, \[10, 8\] here; got \[10, 16\]"):
        deficit_correlation(LayerActivation(digits_net, digits_net.relu1), (x, y), drops=drops)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5), min_size=2, max_size=8))
def test_spearman_of_rows_is_that_of_scipy(rows):
    a = torch.tensor(rows, dtype=torch.float64)
    b = a.flip(0) + torch.arange(5) % 2
    found = spearman_rows(a, b)
    for x, y, value in zip(a.numpy(), b.numpy(), found.tolist(), strict=True):
        if len(set(x)) == 1 or len(set(y)) == 1:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(stats.spearmanr(x, y).statistic)


def test_images_without_a_correlation_are_counted_not_averaged():
    net = nn.Sequential(nn.Identity(), nn.Linear(3, 2)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([torch.ones(3), torch.zeros(3)]))
    x = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    found = deficit_correlation(LayerActivation(net, net[0]), (x, [0, 0]))
    assert found.defined.tolist() == [True, False]
    assert found.mean == pytest.approx(1)
    assert "2 samples, 1 without one" in repr(found)


def test_frames_and_plots_show_every_image(digits_net, small_digits):
    x, y = small_digits[0][:12], small_digits[1][:12]
    found = deficit_correlation(LayerActivation(digits_net, digits_net.relu2), (x, y))
    frame = found.to_frame()
    assert list(frame.columns) == ["method", "sample", "spearman"]
    np.testing.assert_allclose(frame["spearman"], found.values)
    axes = plot_correlations({"first": found, "second": found})
    assert [t.get_text() for t in axes.get_yticklabels()] == ["first", "second"]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), found.values)
    assert found.plot(axes) is axes
