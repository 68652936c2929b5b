"""Shapley values against the sum over all subsets, their laws, and their identity with the gap of an order."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from torch import nn

from captum_ablate import CumulativeAblationEvaluator, LayerShapleyValue, LayerUnitAblation


@pytest.fixture
def small():
    """Five hidden units before a non-linearity, and 12 samples."""
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).eval()
    return model, torch.randn(12, 4), torch.arange(12) % 3


@pytest.mark.parametrize("metric", ["logit", "log_likelihood", "accuracy"])
def test_many_permutations_come_near_the_sum_over_all_subsets(small, metric):
    model, x, y = small
    exact = oracles.shapley_values(model, model[1], x, y.tolist(), torch.zeros_like, metric, 5).mean(0)
    found = LayerShapleyValue(model, "1", metric=metric, permutations=400).attribute(x, target=y)
    scale = max(np.abs(exact).max(), 1e-3)
    np.testing.assert_allclose(found, exact, atol=0.06 * scale)


@pytest.mark.parametrize("reference", ["zero", "mean"])
def test_values_add_up_to_what_all_units_are_worth(small, reference):
    model, x, y = small
    scores = LayerShapleyValue(model, "1", metric="margin", reference=reference, permutations=3).attribute(x, target=y)
    curve = CumulativeAblationEvaluator(model, "1", metric="margin", reference=reference, n_random=0).evaluate(
        scores, (x, y)
    )
    assert float(scores.sum()) == pytest.approx(float(curve.score[0] - curve.score[-1]), abs=1e-5)


def test_where_units_add_up_one_permutation_is_exact_and_equals_unit_ablation():
    model = nn.Sequential(nn.ReLU(), nn.Linear(6, 3)).eval()
    x, y = torch.randn(20, 6), torch.arange(20) % 3
    found = LayerShapleyValue(model, "0", metric="logit", permutations=1).attribute(x, target=y)
    singles = LayerUnitAblation(model, "0", metric="logit").attribute(x, target=y)
    torch.testing.assert_close(found, singles, rtol=0, atol=1e-5)


class Pairs(nn.Module):
    """A value in which units interact at most in pairs: a quadratic form of the layer's output."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.layer = nn.Identity()
        self.form = torch.randn(units, units)

    def forward(self, x):
        h = self.layer(x)
        return torch.stack([(h @ self.form * h).sum(1) + h.sum(1), h[:, 0]], dim=1)


def test_where_units_interact_in_pairs_the_gap_of_any_order_follows_from_the_values():
    units = 6
    model, x, y = Pairs(units).eval(), torch.randn(15, units), torch.zeros(15, dtype=torch.long)
    y[0] = 1
    one = LayerShapleyValue(model, "layer", metric="logit", permutations=1).attribute(x, target=y)
    exact = oracles.shapley_values(model, model.layer, x, y.tolist(), torch.zeros_like, "logit", units).mean(0)
    np.testing.assert_allclose(one, exact, atol=1e-4)  # an order and its reverse are exact
    evaluator = CumulativeAblationEvaluator(model, "layer", metric="logit", steps=None, n_random=0)
    for seed in range(4):
        scores = torch.randn(units, generator=torch.Generator().manual_seed(seed))
        curve = evaluator.evaluate(scores, (x, y))
        position = torch.empty(units)
        position[curve.order] = torch.arange(units, dtype=torch.float32)
        expected = float((one * (1 - (2 * position + 1) / units)).sum())
        assert curve.gap == pytest.approx(expected, abs=1e-4)


def test_the_seed_sets_the_orders(small):
    model, x, y = small
    first, again, other = (
        LayerShapleyValue(model, "1", metric="logit", permutations=2, seed=seed).attribute(x, target=y)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_per_class_is_the_mean_over_the_samples_of_each_class(small):
    model, x, y = small
    method = LayerShapleyValue(model, "1", metric="logit", permutations=5)
    per_class = method.attribute(x, target=y, per_class=True)
    assert per_class.shape == (3, 5)
    torch.testing.assert_close(per_class.mean(0), method.attribute(x, target=y))  # the classes are of one size


@pytest.mark.parametrize("options", [{"permutations": 0}, {"permutations": 1.5}, {"seed": -1}])
def test_wrong_options_are_told(small, options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} must be"):
        LayerShapleyValue(small[0], "1", **options)
