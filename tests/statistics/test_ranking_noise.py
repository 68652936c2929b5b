"""The part of a mean's variance that comes from the ranking data, and intervals and tests that count it."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

from captum_ablate.statistics.intervals import bounded_interval, mean_interval, paired_p
from captum_ablate.statistics.ranking_noise import NO_NOISE, RankingNoise, interval_with, paired_p_with


def table(rng, resamples, m, rank, rest):
    return rank * rng.normal(size=(resamples, 1)) + rng.normal(size=(1, m)) + rest * rng.normal(size=(resamples, m))


def test_the_noise_is_the_variance_component_of_the_resamples():
    values = table(np.random.default_rng(0), 7, 11, 0.5, 1.0)
    squares = oracles.mean_squares(values)
    found = RankingNoise.of(values)
    assert found.variance == pytest.approx((squares["rows"] - squares["rest"]) / 11)
    spread = squares["rows"] ** 2 / 6 + squares["rest"] ** 2 / 60
    assert found.degrees == pytest.approx((squares["rows"] - squares["rest"]) ** 2 / spread)


@pytest.mark.parametrize("rank", [0.1, 0.3])
def test_it_is_unbiased_where_interaction_is_large(rank):
    rng = np.random.default_rng(1)
    found = [RankingNoise.of(table(rng, 20, 50, rank, 1.0)).variance for _ in range(400)]
    assert np.mean(found) == pytest.approx(rank**2, rel=0.1, abs=0.003)  # a little above where it is cut off at 0


def test_orders_that_agree_make_no_noise():
    values = np.random.default_rng(0).normal(size=40)
    assert RankingNoise.of(np.repeat(values[None], 9, axis=0)) == NO_NOISE
    assert RankingNoise.of(np.zeros((0, 0))) == NO_NOISE
    assert RankingNoise.of(np.zeros((20, 0))) == NO_NOISE
    assert interval_with(NO_NOISE, values) == mean_interval(values)
    assert interval_with(NO_NOISE, values, 9.0) == bounded_interval(values, 9.0)
    assert paired_p_with(NO_NOISE, values) == paired_p(values)


def test_one_sample_leaves_the_variance_of_the_means():
    assert RankingNoise.of(np.array([[1.0], [2.0], [4.0]])).variance == pytest.approx(np.var([1, 2, 4], ddof=1))


def test_the_interval_adds_variances_and_is_centred_on_the_original_order():
    values = np.random.default_rng(0).normal(size=50)
    noise = RankingNoise(0.04, 19.0)
    low, high = interval_with(noise, values)
    assert (low + high) / 2 == pytest.approx(values.mean())
    assert (low, high) == pytest.approx(oracles.interval_with_noise(values, 0.04, 19.0))
    one = values.var(ddof=1) / 50
    assert (high - low) / 2 > 1.96 * np.sqrt(one + 0.04)


def test_a_bounded_interval_stays_within_the_span():
    values = np.full(20, 0.9)
    low, high = interval_with(RankingNoise(0.25, 10.0), values, 1.0)
    assert (low, high) == (-1.0, 1.0) or (low > -1.0 and high == 1.0)


def test_p_and_interval_agree_at_5_percent():
    values = np.random.default_rng(3).normal(0.4, 1.0, 60)
    for variance in (1e-6, 0.01, 0.04, 0.2):
        noise = RankingNoise(variance, 15.0)
        low, _ = interval_with(noise, values)
        assert (low > 0) == (paired_p_with(noise, values) < 0.05)


def test_coverage_of_a_mean_whose_order_is_drawn():
    """Truth 0; the original order and its 20 resamples are draws of the same kind, on 200 and 50 samples."""
    rng, inside = np.random.default_rng(0), []
    for _ in range(600):
        order = 0.1 * rng.normal()
        values = order + rng.normal(size=200) + 0.5 * rng.normal(size=200)
        again = 0.1 * rng.normal(size=(20, 1)) + rng.normal(size=(1, 50)) + 0.5 * rng.normal(size=(20, 50))
        low, high = interval_with(RankingNoise.of(again), values)
        inside.append(low <= 0 <= high)
    assert 0.93 <= np.mean(inside) <= 0.975


def test_two_independent_noises_add():
    total = RankingNoise(0.1, 10.0) + RankingNoise(0.3, 20.0)
    assert total.variance == pytest.approx(0.4)
    assert total.degrees == pytest.approx(0.4**2 / (0.1**2 / 10 + 0.3**2 / 20))
    assert (NO_NOISE + NO_NOISE).variance == 0
    assert (NO_NOISE + RankingNoise(0.1, 10.0)).degrees == pytest.approx(10)
