r"""How much of a mean over samples comes from the data that a ranking was made on, and intervals that count it.

A method is ranked again on B resamples of the ranking data. With :math:`c_{bi}` what sample i adds to the mean under
the order of resample b, on m of the n evaluated samples, two-way analysis of variance without replication separates the
resamples from their interaction with the samples, which more samples would average out:

.. math:: s^2_{rank} = \max(0, (MS_{resamples} - MS_{rest}) / m)

The variance of the mean of the original order is :math:`s^2_{rank} + s^2_{samples} / n`, where the second part is that
of the interval for one order. Degrees of freedom are Satterthwaite's. The formulas are textbook, their use is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from captum_ablate.statistics.intervals import (
    Floats,
    Interval,
    bounded_interval,
    mean_error,
    mean_interval,
    paired_p,
    t_interval,
)


@dataclass(frozen=True)
class RankingNoise:
    """Variance of a mean over samples that comes from the ranking data, with its degrees of freedom.

    >>> import numpy as np
    >>> from captum_ablate.statistics.ranking_noise import RankingNoise
    >>> RankingNoise.of(np.array([[1.0, 2.0], [3.0, 4.0]]))
    RankingNoise(variance=2.0, degrees=1.0)
    """

    variance: float
    degrees: float

    @classmethod
    def of(cls, values: Floats) -> RankingNoise:
        """Return the noise of ``values [resamples, m]``, what each sample adds under the order of each resample."""
        resamples, m = values.shape
        if resamples < 2 or m < 1:
            return NO_NOISE
        means = values.mean(axis=1)
        between = m * float(means.var(ddof=1))
        if m == 1:
            return cls(between, resamples - 1.0)
        rest = values - means[:, None] - values.mean(axis=0) + values.mean()
        freedom = (resamples - 1) * (m - 1)
        within = float((rest**2).sum()) / freedom
        variance = (between - within) / m
        if variance <= 1e-24 * max(1.0, float(np.abs(values).max()) ** 2):  # less is rounding
            return NO_NOISE
        spread = (between**2 / (resamples - 1) + within**2 / freedom) / m**2
        return cls(variance, variance**2 / spread)

    def __add__(self, other: RankingNoise) -> RankingNoise:
        """Return the noise of a sum, or a difference, whose parts were ranked on independent data."""
        return RankingNoise(*_joined([(self.variance, self.degrees), (other.variance, other.degrees)]))


NO_NOISE = RankingNoise(0.0, np.inf)
"""The noise of an order that is given."""


def interval_with(noise: RankingNoise, values: Floats, span: float | None = None) -> Interval:
    """Return the interval of the mean of ``values [n]``, which rankings on other data would move by ``noise``.

    Without noise it is ``bounded_interval``, or ``mean_interval`` where no ``span`` is given.
    """
    one = mean_interval(values) if span is None else bounded_interval(values, span)
    n, mean = len(values), float(values.mean())
    if noise.variance == 0 or n < 2:
        return one
    low, high = t_interval(mean, *_joined([(mean_error(values, span) ** 2, n - 1.0), (noise.variance, noise.degrees)]))
    return Interval(low, high) if span is None else Interval(max(low, min(-span, mean)), min(high, max(span, mean)))


def paired_p_with(noise: RankingNoise, difference: Floats, span: float | None = None) -> float:
    """Return the two-sided p that the mean of ``difference [n]`` is 0, where rankings on other data would move it.

    It is 0.05 where an end of ``interval_with`` is 0.
    """
    n = len(difference)
    if noise.variance == 0 or n < 2:
        return paired_p(difference, span)
    variance, degrees = _joined([(mean_error(difference, span) ** 2, n - 1.0), (noise.variance, noise.degrees)])
    return float(2 * stats.t.sf(abs(float(difference.mean())) / np.sqrt(variance), degrees))


def _joined(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the sum of independent variances, and Satterthwaite's degrees of freedom of it."""
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return 0.0, np.inf
    return total, total**2 / sum(variance**2 / degrees for variance, degrees in parts)
