"""Fieller's interval holds exactly the ratios that Student's t does not refuse."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from captum_ablate.statistics.ratio import fieller_interval


def refused(above, below, ratio, noise=0.0, freedom=np.inf):
    """Tell by a t test of ``above - ratio * below`` whether a ratio is refused; ``noise`` is of the mean of below."""
    n = len(above)
    by_samples, by_noise = (above - ratio * below).var(ddof=1) / n, ratio**2 * noise
    estimate = above.mean() / below.mean()
    at = (above - estimate * below).var(ddof=1) / n, estimate**2 * noise
    degrees = sum(at) ** 2 / (at[0] ** 2 / (n - 1) + at[1] ** 2 / freedom)
    t = (above - ratio * below).mean() / np.sqrt(by_samples + by_noise)
    return abs(t) > stats.t.ppf(0.975, degrees)


@pytest.mark.parametrize(("noise", "freedom"), [(0.0, np.inf), (0.004, 19), (0.02, 5)])
@pytest.mark.parametrize("seed", range(4))
def test_ends_are_where_the_t_test_begins_to_refuse(seed, noise, freedom):
    rng = np.random.default_rng(seed)
    below = rng.normal(1.0, 1.0, 60)
    above = 0.5 * below + rng.normal(0.2, 0.7, 60)
    ratio, (low, high) = fieller_interval(above, below, np.diag([0.0, noise]), freedom)
    assert ratio == pytest.approx(above.mean() / below.mean())
    for end, inside in ((low, 1e-6), (high, -1e-6)):
        assert not refused(above, below, end + inside, noise, freedom)
        assert refused(above, below, end - inside, noise, freedom)
    assert not refused(above, below, (low + high) / 2, noise, freedom)


def test_noise_of_the_means_widens_the_interval_and_can_take_it_away():
    rng = np.random.default_rng(0)
    below = rng.normal(1.0, 1.0, 100)
    above = below + rng.normal(0, 0.5, 100)
    widths = [np.ptp(fieller_interval(above, below, np.diag([0.0, noise]), 19)[1]) for noise in (0, 0.01, 0.05)]
    assert widths == sorted(widths)
    ratio, interval = fieller_interval(above, below, np.diag([0.0, 1.0]), 19)
    assert np.isfinite(ratio)
    assert np.isnan(interval).all()


def test_common_noise_cancels():
    rng = np.random.default_rng(1)
    below = rng.normal(1.0, 1.0, 100)
    shared = np.full((2, 2), 0.02)
    _, interval = fieller_interval(below, below, shared, 19)
    assert interval == pytest.approx((1.0, 1.0))


def test_a_denominator_that_may_be_0_has_no_interval():
    below = np.array([1.0, -1.0, 0.5, -0.4])
    assert np.isnan(fieller_interval(below + 1, below)[1]).all()
    assert np.isnan(fieller_interval(np.ones(3), np.zeros(3))[0])
    assert np.isnan(fieller_interval(np.ones(1), np.ones(1))[1]).all()


def test_the_interval_covers_the_ratio():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(1000):
        below = rng.exponential(1.0, 50)
        above = 0.8 * below + rng.normal(0, 1, 50)
        shift = rng.normal(0, 0.1)  # the denominator's own noise, beyond the samples
        low, high = fieller_interval(above, below + shift, np.diag([0.0, 0.01]), 1e9)[1]
        hits += low <= 0.8 <= high
    assert 0.935 <= hits / 1000 <= 0.97
