"""Class selectivity and selectivity times activity against their oracles, and their limits."""

from __future__ import annotations

from functools import partial

import numpy as np
import oracles
import pytest
import torch
from captum_networks import BasicModel_MultiLayer
from torch import nn

from captum_ablate import (
    LayerClassSelectivity,
    LayerEntropy,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerSelectivityActivity,
    LayerUnitAblation,
)

LAYERS = ["conv1", "relu1", "conv2", "relu2", "fc1", "relu3", "fc2"]


def identity_net(units):
    """A net whose first layer shows its input."""
    return nn.Sequential(nn.Identity(), nn.Linear(units, 2)).eval()


@pytest.mark.parametrize("layer", LAYERS)
def test_class_selectivity_equals_oracle(digits_net, small_digits, layer):
    x, y = small_digits
    values = oracles.layer_values(digits_net, digits_net.get_submodule(layer), x)
    attribution = LayerClassSelectivity(digits_net, layer)
    expected = oracles.class_selectivity(values, y.tolist())
    np.testing.assert_allclose(attribution.attribute(x, target=y).numpy(), expected, rtol=1e-8, atol=1e-8)
    per_class = attribution.attribute(x, target=y, per_class=True)
    expected = oracles.class_selectivity_per_class(values, y.tolist())
    assert per_class.shape == expected.shape
    np.testing.assert_allclose(per_class.numpy(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("layer", LAYERS)
def test_selectivity_activity_equals_oracle(digits_net, small_digits, layer):
    x, y = small_digits
    values = oracles.layer_values(digits_net, digits_net.get_submodule(layer), x)
    attribution = LayerSelectivityActivity(digits_net, layer)
    expected = oracles.selectivity_activity(values, y.tolist())
    np.testing.assert_allclose(attribution.attribute(x, target=y).numpy(), expected, rtol=1e-8, atol=1e-8)
    expected = oracles.selectivity_activity_per_class(values, y.tolist())
    per_class = attribution.attribute(x, target=y, per_class=True)
    np.testing.assert_allclose(per_class.numpy(), expected, rtol=1e-8, atol=1e-8)


def test_class_selectivity_equals_oracle_on_a_captum_model():
    model, x, y = BasicModel_MultiLayer(), torch.randn(30, 3) * 4, torch.arange(30) % 4
    values = oracles.layer_values(model, model.linear1, x)
    scores = LayerClassSelectivity(model, model.linear1).attribute(x, target=y)
    np.testing.assert_allclose(scores.numpy(), oracles.class_selectivity(values, y.tolist()), rtol=1e-8)


def test_selectivity_of_known_means_is_as_computed_by_hand():
    x = torch.tensor([[4.0, -1.0, 0.0, -1.0], [2.0, -3.0, 0.0, 1.0], [1.0, -5.0, 0.0, 0.0]])
    scores = LayerClassSelectivity(identity_net(4), "0").attribute(x, target=[0, 1, 2])
    expected = torch.tensor([2.5 / 5.5, 3 / 5, 0.0, 1.5 / 1.5], dtype=torch.float64)
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-9)


def test_every_class_counts_the_same_however_large():
    x = torch.tensor([[6.0]] + [[0.0]] * 97 + [[2.0]] * 2)
    scores = LayerClassSelectivity(identity_net(1), "0").attribute(x, target=[0] + [1] * 97 + [2] * 2)
    torch.testing.assert_close(scores, torch.tensor([5 / 7], dtype=torch.float64), rtol=1e-6, atol=0)


def test_selectivity_is_between_0_and_1_for_activations_above_0(digits_net, small_digits):
    x, y = small_digits
    for layer in ("relu1", "relu2", "relu3"):
        scores = LayerClassSelectivity(digits_net, layer).attribute(x, target=y)
        assert (scores >= 0).all()
        assert (scores <= 1).all()


def test_the_best_class_has_the_score_of_the_unit(digits_net, small_digits):
    x, y = small_digits
    attribution = LayerClassSelectivity(digits_net, "relu3")
    means = LayerMeanActivity(digits_net, "relu3").attribute(x, target=y, per_class=True)
    best = attribution.attribute(x, target=y, per_class=True).gather(0, means.argmax(0, keepdim=True))[0]
    torch.testing.assert_close(attribution.attribute(x, target=y), best, rtol=1e-12, atol=0)


def test_a_dead_unit_scores_0():
    x = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 5.0]])
    for cls in (LayerClassSelectivity, LayerSelectivityActivity):
        scores = cls(identity_net(2), "0").attribute(x, target=[0, 1, 1])
        assert scores[0] == 0
        assert scores[1] > 0


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e8, 1e30])
def test_the_scale_of_a_unit_does_not_matter(scale):
    x = torch.randn(60, 5).abs() * torch.tensor([1.0, 2.0, 3.0, 1.0, 0.0])
    y = torch.arange(60) % 3
    own = torch.tensor([scale, 1.0, scale, 1.0, 1.0])
    for per_class in (False, True):
        attribution = LayerClassSelectivity(identity_net(5).double(), "0")
        plain = attribution.attribute(x.double(), target=y, per_class=per_class)
        scaled = attribution.attribute(x.double() * own, target=y, per_class=per_class)
        torch.testing.assert_close(scaled, plain, rtol=1e-12, atol=0)
    product = LayerSelectivityActivity(identity_net(5).double(), "0")
    plain, scaled = product.attribute(x.double(), target=y), product.attribute(x.double() * own, target=y)
    torch.testing.assert_close(scaled, plain * own, rtol=1e-12, atol=0)


def test_equal_class_means_score_0_and_not_below_by_rounding():
    x = torch.full((70, 3), 0.1)
    scores = LayerClassSelectivity(identity_net(3), "0").attribute(x, target=[k % 7 for k in range(70)])
    assert (scores >= 0).all()
    assert (scores < 1e-14).all()


def test_eps_is_added_to_the_denominator():
    x = torch.tensor([[3.0], [1.0]])
    scores = LayerClassSelectivity(identity_net(1), "0", eps=4.0).attribute(x, target=[0, 1])
    torch.testing.assert_close(scores, torch.tensor([2 / 8], dtype=torch.float64))


def test_selectivity_activity_is_selectivity_times_mean_activity_above_0(digits_net, small_digits):
    x, y = small_digits
    product, selectivity, activity = (
        cls(digits_net, "relu3").attribute(x, target=y)
        for cls in (LayerSelectivityActivity, LayerClassSelectivity, LayerMeanActivity)
    )
    torch.testing.assert_close(product, selectivity * activity, rtol=1e-12, atol=0)


@pytest.mark.parametrize("factory", [LayerMutualInformation, partial(LayerMutualInformation, bins=4), LayerEntropy])
def test_another_selectivity_takes_the_place_of_the_index(digits_net, small_digits, factory):
    x, y = small_digits
    values = oracles.layer_values(digits_net, digits_net.relu3, x)
    scores = LayerSelectivityActivity(digits_net, "relu3", selectivity=factory).attribute(x, target=y)
    alone = factory(digits_net, digits_net.relu3).attribute(x, target=y)
    expected = alone.numpy() * oracles.mean_activity(np.abs(values))
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-8, atol=1e-12)


def test_measured_ablation_is_refused_in_the_place_of_the_index(digits_net):
    with pytest.raises(
        ValueError, match=r"statistic of the activations; LayerUnitAblation makes passes.*multiply the two"
    ):
        LayerSelectivityActivity(digits_net, "relu3", selectivity=LayerUnitAblation)


def test_another_selectivity_is_taken_over_the_same_groups_and_axis(digits_net, small_digits):
    x, y = small_digits
    mask = torch.tensor([0, 1, 2, 3] * 4)
    scores = LayerSelectivityActivity(
        digits_net, "conv2", layer_mask=mask, selectivity=LayerMutualInformation
    ).attribute(x, target=y)
    alone = LayerMutualInformation(digits_net, "conv2", layer_mask=mask).attribute(x, target=y)
    values = oracles.grouped(oracles.layer_values(digits_net, digits_net.conv2, x), mask.tolist())
    np.testing.assert_allclose(scores.numpy(), alone.numpy() * np.abs(values).mean(0), rtol=1e-8)


def test_a_selectivity_that_is_no_attribution_over_a_data_set_is_refused(dense):
    with pytest.raises(TypeError, match=r"selectivity must be a function.*it returned Linear"):
        LayerSelectivityActivity(dense, "0", selectivity=lambda model, layer: layer)
