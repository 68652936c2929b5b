"""The linear probe against scikit-learn fitted by hand."""

from __future__ import annotations

import warnings

import numpy as np
import oracles
import pytest
import torch
from torch import nn

from captum_ablate import LayerLinearProbe


@pytest.mark.parametrize("C", [0.01, 1.0])
def test_probe_equals_scikit_learn(digits_net, small_digits, C):
    x, y = small_digits
    values = oracles.layer_values(digits_net, digits_net.relu3, x)
    scores = LayerLinearProbe(digits_net, "relu3", C=C).attribute(x, target=y)
    np.testing.assert_allclose(scores.numpy(), oracles.probe(values, y.tolist(), C), rtol=1e-2, atol=1e-3)


def test_probe_per_class_gives_the_centred_weights(digits_net, small_digits):
    x, y = small_digits
    values = oracles.layer_values(digits_net, digits_net.relu3, x)
    attribution = LayerLinearProbe(digits_net, "relu3", C=0.1)
    weights = attribution.attribute(x, target=y, per_class=True)
    assert weights.shape == (10, 24)
    np.testing.assert_allclose(weights.numpy(), oracles.probe_weights(values, y.tolist(), 0.1), rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(weights.sum(0), torch.zeros(24, dtype=torch.float64), rtol=0, atol=1e-9)
    norms = torch.linalg.vector_norm(weights, dim=0)
    torch.testing.assert_close(attribution.attribute(x, target=y), norms, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_unit_that_varies_by_rounding_alone_scores_0(dtype):
    """Its rounding, made one standard deviation wide, would get the weight of a unit that says something."""
    y = torch.arange(60) % 3
    x = torch.randn(60, 3).to(dtype)
    x[:, 1] = (1 + torch.finfo(dtype).eps * torch.eye(2)[y % 2][:, 0].double()).to(dtype)
    assert len(x[:, 1].unique()) == 2
    model = nn.Sequential(nn.Identity(), nn.Linear(3, 3, dtype=dtype)).eval()
    scores = LayerLinearProbe(model, "0", C=1.0).attribute(x, target=y)
    assert scores[1] == 0
    assert (scores[[0, 2]] > 0).all()


def test_two_classes_are_the_softmax_of_the_binary_probe(dense, dense_data):
    x, y = dense_data[0], (dense_data[1] > 0).long()
    values = oracles.layer_values(dense, dense[2], x)
    attribution = LayerLinearProbe(dense, "2", C=1.0)
    weights = attribution.attribute(x, target=y, per_class=True)
    np.testing.assert_allclose(weights.numpy(), oracles.probe_weights(values, y.tolist(), 1.0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(weights[0], -weights[1])
    torch.testing.assert_close(attribution.attribute(x, target=y), weights[1].abs() * 2**0.5)


def test_dead_units_score_0_and_do_not_disturb_the_others():
    y = torch.arange(60) % 3
    alive = torch.randn(60, 3) + torch.nn.functional.one_hot(y, 3)
    x = torch.cat([torch.zeros(60, 1), alive, torch.full((60, 1), 0.1)], dim=1)
    with_dead = LayerLinearProbe(nn.Sequential(nn.Identity(), nn.Linear(5, 3)).eval(), "0", C=1.0)
    without = LayerLinearProbe(nn.Sequential(nn.Identity(), nn.Linear(3, 3)).eval(), "0", C=1.0)
    scores = with_dead.attribute(x, target=y)
    assert scores[[0, 4]].tolist() == [0, 0]
    torch.testing.assert_close(scores[1:4], without.attribute(alive, target=y), rtol=1e-4, atol=1e-6)


def test_a_layer_of_dead_units_only_scores_0():
    model = nn.Sequential(nn.Identity(), nn.Linear(4, 2)).eval()
    scores = LayerLinearProbe(model, "0").attribute(torch.ones(12, 4), target=torch.arange(12) % 2)
    assert scores.tolist() == [0] * 4


def test_the_informative_unit_scores_highest_with_a_strength_from_cross_validation():
    y = torch.arange(90) % 3
    x = torch.randn(90, 6)
    x[:, 4] += 3 * (y == 1)
    scores = LayerLinearProbe(nn.Sequential(nn.Identity(), nn.Linear(6, 3)).eval(), "0").attribute(x, target=y)
    assert scores.argmax() == 4


def test_a_scale_of_a_unit_does_not_matter():
    y = torch.arange(60) % 3
    x = torch.randn(60, 4) + torch.nn.functional.one_hot(y, 4)
    attribution = LayerLinearProbe(nn.Sequential(nn.Identity(), nn.Linear(4, 3)).eval(), "0", C=0.5)
    scaled = attribution.attribute(x * torch.tensor([1e-3, 1.0, 1e3, 5.0]) + 2.0, target=y)
    torch.testing.assert_close(scaled, attribution.attribute(x, target=y), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("C", [None, 0.3])
def test_the_order_of_samples_does_not_change_the_probe(dense, dense_data, C):
    x, y = dense_data
    order = torch.randperm(len(x))
    attribution = LayerLinearProbe(dense, "2", C=C)
    scores = attribution.attribute(x, target=y)
    torch.testing.assert_close(attribution.attribute(x[order], target=y[order]), scores, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("C", [None, 0.3])
def test_permuted_units_permute_the_probe(C):
    y = torch.arange(90) % 3
    x = torch.randn(90, 6) + 0.3 * torch.nn.functional.one_hot(y, 6)
    attribution = LayerLinearProbe(nn.Sequential(nn.Identity(), nn.Linear(6, 3)).eval(), "0", C=C)
    scores = attribution.attribute(x, target=y)
    for seed in range(8):
        order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(attribution.attribute(x[:, order], target=y), scores[order], rtol=1e-2, atol=1e-3)


def test_cross_validation_needs_two_samples_of_every_class(dense, dense_data):
    x = dense_data[0]
    with pytest.raises(ValueError, match=r"at least 2 samples of every class.*LayerLinearProbe\(\.\.\., C=1\.0\)"):
        LayerLinearProbe(dense, "0").attribute(x[:5], target=[0, 0, 1, 1, 2])
    scores = LayerLinearProbe(dense, "0", C=1.0).attribute(x[:5], target=[0, 0, 1, 1, 2])
    assert scores.shape == (7,)


@pytest.mark.parametrize("C", [0, -1.0, float("nan")])
def test_a_strength_that_is_not_positive_is_refused(dense, C):
    with pytest.raises(ValueError, match="C must be positive, or None for cross-validation"):
        LayerLinearProbe(dense, "0", C=C)


def test_the_probe_is_silent(dense, dense_data):  # passes if nothing is raised
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LayerLinearProbe(dense, "0").attribute(dense_data[0], target=dense_data[1])
