"""Random orders: their values, their expected gap, and what a curve says of itself against them."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from captum.attr import LayerConductance
from curve_checks import SCORES, close

from captum_ablate import CumulativeAblationEvaluator


def test_random_orders_have_no_ties_in_common_with_a_constant_method(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=20, metric="logit")
    curve = evaluator.evaluate(torch.zeros(6), dense_data)
    assert curve.p > 0.1


def test_z_and_p_hold_the_gap_against_that_of_the_random_orders(dense, dense_data):
    comparison = CumulativeAblationEvaluator(dense, "2", n_random=11, metric="logit", seed=3).compare(
        {"a": SCORES, "b": -SCORES, "c": torch.arange(6.0)}, dense_data
    )
    null = comparison.random.areas - comparison.random.ascending_areas
    assert null.shape == (11, 60)
    close(comparison.random.gap, null.mean(1), atol=1e-12)
    gaps = comparison.random.gap.tolist()
    for curve in comparison.curves.values():
        z, p_raw, p_exact = oracles.against_chance(curve.gap, gaps)
        assert curve.z == pytest.approx(z, rel=1e-9)
        assert curve.p_raw == pytest.approx(p_raw, rel=1e-9)
        assert curve.p_exact == pytest.approx(p_exact, rel=1e-9)
    raw = [curve.p_raw for curve in comparison.curves.values()]
    for curve, expected in zip(comparison.curves.values(), oracles.holm(raw), strict=True):
        assert curve.p == pytest.approx(expected, rel=1e-9)


def test_the_values_of_random_orders_are_those_of_full_passes(dense, dense_data):
    """The orders are not told, but with one unit ablated a random curve must be that of one of the units."""
    x, y = dense_data
    comparison = CumulativeAblationEvaluator(dense, "2", n_random=30, metric="logit", steps=[1]).compare(
        {"a": SCORES}, dense_data
    )
    singles = [
        oracles.ablation_values(dense, dense[2], x, y.tolist(), [u], [1], torch.zeros_like, "logit") for u in range(6)
    ]
    means = [float(single.mean()) for single in singles]
    found = [int(np.abs(np.array(means) - float(s)).argmin()) for s in comparison.random.score[:, 1]]
    for score, unit in zip(comparison.random.score[:, 1], found, strict=True):
        assert float(score) == pytest.approx(means[unit], abs=1e-5)
    assert len(set(found)) == 6


def test_the_expected_gap_of_random_orders_is_zero(dense, dense_data):
    comparison = CumulativeAblationEvaluator(dense, "2", n_random=300, metric="logit").compare(
        {"a": SCORES}, dense_data
    )
    gaps = comparison.random.gap.numpy()
    assert abs(gaps.mean()) < 4 * gaps.std() / np.sqrt(300)
    assert gaps.std() > 0.01


def test_random_orders_are_the_same_for_all_methods_and_follow_the_seed(dense, dense_data):
    def compare(methods, seed=0):
        return CumulativeAblationEvaluator(dense, "2", n_random=4, metric="logit", seed=seed).compare(
            methods, dense_data
        )

    one = compare({"a": SCORES})
    many = compare({"b": -SCORES, "a": SCORES, "c": torch.zeros(6), "d": LayerConductance(dense, dense[2])})
    assert torch.equal(one.random.areas, many.random.areas)
    assert torch.equal(one.random.score, many.random.score)
    assert torch.equal(one.random.ascending_score, compare({"a": SCORES}).random.ascending_score)
    assert not torch.equal(one.random.areas, compare({"a": SCORES}, seed=1).random.areas)


def test_without_random_orders_nothing_is_said_of_them(dense, dense_data):
    comparison = CumulativeAblationEvaluator(dense, "2", n_random=0).compare({"a": SCORES}, dense_data)
    curve = comparison["a"]
    assert np.isnan([curve.z, curve.p, curve.p_raw, curve.p_exact]).all()
    assert comparison.random.areas.shape == (0, 60)
    assert "random" not in str(comparison).lower()


def test_the_exchange_p_is_a_multiple_of_a_share_of_the_signed_gaps(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "0", n_random=9, metric="logit", steps=3, seed=7)
    methods = {str(k): torch.randn(7) for k in range(200)}
    comparison = evaluator.compare(methods, dense_data)
    p = np.array([curve.p_exact for curve in comparison.curves.values()])
    np.testing.assert_allclose(p * 20, np.round(p * 20), atol=1e-9)
    assert set(np.round(p * 20)) <= set(range(1, 21))
    assert 0.2 < (p <= 0.5).mean() < 0.8
