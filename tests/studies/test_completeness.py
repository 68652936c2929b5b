"""Completeness: exact on linear networks, shrinking with the steps elsewhere, and missing where it must be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import (
    InternalInfluence,
    LayerConductance,
    LayerDeepLift,
    LayerGradientXActivation,
)
from captum_networks import BasicModel_MultiLayer, BasicModel_MultiLayer_MultiInput
from torch import nn

from captum_ablate.studies import completeness_delta, plot_completeness

FINE = {"method": "riemann_trapezoid"}


@pytest.fixture
def linear():
    """Two linear layers without bias: F(x) = w2 . (W1 x)."""
    return nn.Sequential(nn.Linear(5, 4, bias=False), nn.Linear(4, 3, bias=False)).double().eval()


def test_on_a_linear_network_conductance_is_weight_times_unit_and_complete(linear):
    x = torch.randn(6, 5).double()
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    conductance = LayerConductance(linear, linear[0]).attribute(x, target=y, n_steps=7, **FINE)
    expected = linear[1].weight[y] * linear[0](x)
    torch.testing.assert_close(conductance, expected)
    torch.testing.assert_close(LayerGradientXActivation(linear, linear[0]).attribute(x, target=y), expected)
    torch.testing.assert_close(InternalInfluence(linear, linear[0]).attribute(x, target=y), linear[1].weight[y])
    found = completeness_delta(LayerConductance(linear, linear[0]), x, None, y, n_steps=7, **FINE)
    torch.testing.assert_close(found.delta, torch.zeros(6).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(found.change, linear(x).gather(1, y[:, None])[:, 0])


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Sigmoid, nn.Tanh])
def test_the_error_of_conductance_shrinks_with_the_number_of_steps(activation):
    net = nn.Sequential(nn.Linear(6, 8), activation(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()
    x, y = 2 * torch.randn(6, 6).double(), torch.arange(6) % 3
    coarse, fine = (completeness_delta(LayerConductance(net, net[1]), x, 0.0, y, n_steps=n, **FINE) for n in (20, 200))
    assert 5 < coarse.delta.abs().mean() / fine.delta.abs().mean() < 20  # a left-point sum: the error goes as 1 / n
    assert fine.relative.median() < 0.02


def test_rivals_are_not_complete_where_units_saturate():
    net = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()
    x, y = 4 * torch.randn(30, 6).double(), torch.arange(30) % 3
    errors = {
        kind.__name__: completeness_delta(kind(net, net[1]), x, 0.0, y).relative.median().item()
        for kind in (LayerGradientXActivation, InternalInfluence)
    }
    assert all(error > 0.05 for error in errors.values()), errors


def test_the_change_is_between_baseline_and_input():
    net = BasicModel_MultiLayer().eval()
    x, start = torch.tensor([[1.0, 2.0, 3.0], [0.0, 4.0, 1.0]]), torch.tensor([[0.5, 0.0, 1.0]])
    found = completeness_delta(LayerDeepLift(net, net.linear0), x, start, 1)
    with torch.no_grad():
        expected = (net(x) - net(start))[:, 1].double()
    torch.testing.assert_close(found.change, expected)
    torch.testing.assert_close(found.delta, torch.zeros(2).double(), atol=1e-5, rtol=0)


def test_several_inputs_and_further_arguments():
    net = BasicModel_MultiLayer_MultiInput().eval()
    inputs = tuple(torch.rand(4, 3) for _ in range(3))
    attribution = LayerConductance(net, net.model.linear1)
    found = completeness_delta(
        attribution, inputs, (0, 0.5, torch.zeros(3)), 0, additional_forward_args=(4,), n_steps=400, **FINE
    )
    assert found.delta.abs().max() < 0.01 * found.change.abs().max()


def test_a_layer_beside_a_skip_connection_is_no_cut():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(x + self.inner(x))

    net, x = Skip().double().eval(), torch.randn(10, 4).double()
    beside = completeness_delta(LayerConductance(net, net.inner), x, 0.0, 0, n_steps=50, **FINE)
    assert beside.relative.median() > 0.05


def test_relative_error_frame_and_plot(linear):
    x = torch.randn(6, 5).double()
    found = completeness_delta(InternalInfluence(linear, linear[0]), x, None, 2)
    np.testing.assert_allclose(found.relative, (found.delta / found.change).abs())
    frame = found.to_frame()
    assert list(frame.columns) == ["method", "sample", "total", "change", "delta", "relative"]
    axes = plot_completeness({"influence": found})
    np.testing.assert_allclose(axes.lines[1].get_xdata(), found.change)
    assert found.plot(axes) is axes
    assert "InternalInfluence" in repr(found)


def test_mistakes_are_told(linear):
    x = torch.randn(6, 5).double()
    attribution = LayerConductance(linear, linear[0])
    with pytest.raises(ValueError, match="baselines must be one for each of the 1 inputs; got 2"):
        completeness_delta(attribution, x, (0, 0), 1)
    with pytest.raises(ValueError, match=r"broadcast to the inputs \[\(6, 5\)\]; got \[\(4,\)\]"):
        completeness_delta(attribution, x, torch.zeros(4), 1)
    with pytest.raises(ValueError, match="one integer class per sample"):
        completeness_delta(attribution, x, 0, torch.zeros(6, 2))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_relative_errors_do_not_go_with_the_scale_of_the_output(linear, scale):
    x, y = torch.randn(6, 5).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.no_grad():
        linear[1].weight.mul_(scale)
    found = completeness_delta(InternalInfluence(linear, linear[0]), x, None, y, n_steps=5)
    change = found.change.numpy()
    expected = abs(found.total.numpy() - change) / np.maximum(abs(change), 1e-6 * abs(change).max())
    np.testing.assert_allclose(found.relative, expected, rtol=1e-12)
    assert float(found.relative.median()) > 0.01


def test_nothing_attributed_where_nothing_changes_is_no_error(linear):
    x, y = torch.randn(6, 5).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    found = completeness_delta(LayerGradientXActivation(linear, linear[0]), x * 0, None, y)
    assert found.relative.tolist() == [0.0] * 6
    found = completeness_delta(LayerGradientXActivation(linear, linear[0]), x, x, y)
    assert (found.relative == torch.inf).all()
