"""Bias balancing equals ablation with the mean as reference wherever the next layer is affine; elsewhere it says no."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from captum_ablate import LayerMeanActivity
from captum_ablate.studies import bias_balanced


def ablated(model, layer, inputs, units, values):
    """Outputs of a plain forward pass in which ``units`` of ``layer`` hold their ``values``, one per unit."""

    def replace(_module, _args, output):
        output = output.clone()
        for u in units:
            output[:, u] = values[u]
        return output

    handle = model.get_submodule(layer).register_forward_hook(replace)
    with torch.no_grad():
        outputs = model(inputs)
    handle.remove()
    return outputs


NETWORKS = {
    "linear": (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3)), "1", "2", (6,)),
    "flattened channels": (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)),
        "1",
        "3",
        (2, 5, 5),
    ),
    "convolution": (
        nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "1",
        "2",
        (2, 7, 7),
    ),
    "no bias": (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3, bias=False)), "1", "2", (6,)),
}


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_balancing_is_the_mean_reference(name, seed):
    model, layer, next_layer, shape = NETWORKS[name]
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(30, *shape, generator=generator)
    means = LayerMeanActivity(model, layer).attribute(inputs, target=torch.arange(30) % 2)
    kept = torch.rand(len(means), generator=generator) < 0.5
    units = (~kept).nonzero().flatten()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    balanced, cut = bias_balanced(model, next_layer, units, means), bias_balanced(model, next_layer, units, 0 * means)
    with torch.no_grad():
        np.testing.assert_allclose(balanced(inputs), ablated(model, layer, inputs, units, means), atol=1e-5)
        np.testing.assert_allclose(
            cut(inputs), ablated(model, layer, inputs, units, torch.zeros(len(means))), atol=1e-5
        )
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_the_evaluator_measures_the_same(digits_net, small_digits):
    from captum_ablate import CumulativeAblationEvaluator

    means = LayerMeanActivity(digits_net, "relu3").attribute(*small_digits)
    evaluator = CumulativeAblationEvaluator(
        digits_net, "relu3", reference="mean", metric="log_likelihood", steps=4, n_random=0
    )
    curve = evaluator.evaluate(torch.rand(24), small_digits)
    for count, score in zip(curve.n_ablated.tolist(), curve.score.tolist(), strict=True):
        with torch.no_grad():
            outputs = bias_balanced(digits_net, "fc2", curve.order[:count], means)(small_digits[0])
        expected = torch.log_softmax(outputs, 1).gather(1, small_digits[1][:, None]).mean().item()
        assert score == pytest.approx(expected, abs=1e-5)


def test_a_unit_named_twice_is_balanced_once():
    model = NETWORKS["linear"][0]
    once, twice = (bias_balanced(model, "2", units, torch.ones(8)) for units in ([3], [3, 3]))
    assert torch.equal(once[2].bias, twice[2].bias)


def test_what_no_bias_can_balance_is_refused():
    padded = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3, padding=1))
    with pytest.raises(ValueError, match="'1' pads with zeros"):
        bias_balanced(padded, "1", [0], torch.ones(4))
    assert torch.equal(
        bias_balanced(padded, "1", [0], torch.zeros(4))[1].weight[:, 0], torch.zeros(3, 3, 3)
    )  # cutting out is exact
    with pytest.raises(TypeError, match="'1' is a ReLU"):
        bias_balanced(NETWORKS["linear"][0], "1", [0], torch.ones(8))
    with pytest.raises(ValueError, match=r"each unit that '2' reads \(8 inputs, .*\); got 3"):
        bias_balanced(NETWORKS["linear"][0], "2", [0], torch.ones(3))
    with pytest.raises(ValueError, match="indices from 0 to 7; got 8 to 8"):
        bias_balanced(NETWORKS["linear"][0], "2", [8], torch.ones(8))
    with pytest.raises(ValueError, match="has 2"):
        bias_balanced(nn.Sequential(nn.Conv2d(4, 4, 1, groups=2)), "0", [0], torch.ones(4))
