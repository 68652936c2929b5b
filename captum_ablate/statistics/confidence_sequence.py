r"""Intervals that hold at every sample size at once, so that one may look at the data and stop when they are narrow.

The betting confidence sequence of Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting"
(J. R. Stat. Soc. B 86(1), 2024, arXiv 2010.09686), in its form for sampling without replacement: N fixed values in
[0, 1] with mean :math:`\mu` are drawn one after the other in random order. A candidate m for the mean implies that the
next value has the mean

.. math:: m_t = \frac{N m - \sum_{i<t} x_i}{N - t + 1},

so a gambler who bets on or against it neither gains nor loses on average if :math:`m = \mu`. From 1 on, the capitals

.. math:: K_t^\pm(m) = \prod_{i \le t} \left(1 \pm \lambda_i^\pm (x_i - m_i)\right), \quad
          \lambda_i^+ = \min(\lambda_i, c / m_i), \quad \lambda_i^- = \min(\lambda_i, c / (1 - m_i))

are non-negative martingales, so by Ville's inequality :math:`\max(K_t^+, K_t^-) / 2` ever reaches
:math:`1/\alpha` with a probability of at most :math:`\alpha`: the m for which it never did are the confidence sequence,
its running intersection included. The bets are the paper's predictable plug-in,

.. math:: \lambda_t = \sqrt{\frac{2 \log(2/\alpha)}{\hat\sigma_{t-1}^2 \, t \log(1 + t)}}, \quad
          \hat\sigma_t^2 = \frac{1/4 + \sum_{i \le t} (x_i - \hat\mu_i)^2}{t + 1}, \quad
          \hat\mu_t = \frac{1/2 + \sum_{i \le t} x_i}{t + 1},

with c = 1/2. What lies outside of [sum of the values seen / N, that + 1 - n/N] is impossible and left out too, so at
n = N the interval is the mean. Ours: the ends are found by bisection, which the capitals allow because
:math:`K^+` falls and :math:`K^-` rises with m, instead of on a grid; and the level is divided by the number of methods
(Bonferroni).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from captum_ablate.statistics.intervals import LEVEL, Floats, Interval

TRUNCATION = 0.5
"""c: the share of the capital that a bet may lose."""
HALVINGS = 32
"""Steps of bisection: ends are found to 2e-10, from the outer side."""
ROUNDING = 1e-13
"""Once all values are drawn, the ends are so far from their mean: summed in another order, it is inside as well."""


@dataclass(frozen=True, eq=False)
class ConfidenceSequence:
    """Bounds on the means of several lists of ``population`` values in [0, 1] each, after ``n`` random draws.

    ``values [n, methods]`` are those drawn, in the order in which they came; the draw is the same for all methods.
    ``low`` and ``high [methods]`` contain all the means, at all n together, with a probability of at least ``level``.
    """

    values: Floats
    population: int
    low: Floats
    high: Floats
    level: float = LEVEL

    @classmethod
    def start(cls, methods: int, population: int, *, level: float = LEVEL) -> ConfidenceSequence:
        """Return the sequence before the first draw: every mean lies in [0, 1]."""
        if methods < 1 or population < 1 or not 0 < level < 1:
            raise ValueError(
                "a confidence sequence needs at least one method, one value to draw and a level between 0 and 1; got "
                f"{methods} methods, {population} values, level {level}"
            )
        return cls(np.empty((0, methods)), population, np.zeros(methods), np.ones(methods), level)

    def extended(self, values: Floats) -> ConfidenceSequence:
        """Return the sequence after further draws ``values [k, methods]``."""
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.low):
            raise ValueError(f"values must have shape [k, {len(self.low)}]; got {values.shape}")
        if self.n + len(values) > self.population:
            raise ValueError(f"{self.n + len(values)} draws from {self.population} values without replacement")
        drawn = np.concatenate([self.values, values])
        low, high = betting_interval(drawn, self.population, (1 - self.level) / len(self.low))
        return ConfidenceSequence(
            drawn, self.population, np.maximum(low, self.low), np.minimum(high, self.high), self.level
        )

    @property
    def n(self) -> int:
        """Number of draws so far."""
        return len(self.values)

    @property
    def half_width(self) -> Floats:
        """Half the length of each interval, ``[methods]``."""
        return (self.high - self.low) / 2


def betting_interval(values: Floats, population: int, alpha: float) -> tuple[Floats, Floats]:
    """Return the ends ``[columns]`` of the confidence sequence of each column of ``values [n, columns]`` at n.

    Each column: the first n of ``population`` values in [0, 1] in random order. Level ``1 - alpha`` per column.
    """
    if len(values) and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"values must lie in [0, 1]; got {values.min():.6g} to {values.max():.6g}")
    low = _lower(values, population, alpha)
    high = 1 - _lower(1 - values, population, alpha)
    return low, np.maximum(low, high)  # they cross only where the data have refuted every mean, at most alpha of times


def _lower(values: Floats, population: int, alpha: float) -> Floats:
    """Return the lower ends ``[columns]``: below them, betting that the values are larger has won."""
    n = len(values)
    total = values.sum(axis=0)
    outside, inside = total / population, 1 - (n - total) / population
    if n in (0, population):
        lowest: Floats = np.maximum(outside - ROUNDING, 0)
        return lowest
    left = population - np.arange(n)[:, None]  # N - t + 1
    before = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(axis=0)[:-1]])  # sum of the earlier ones
    bets, threshold = _bets(values, alpha), log(2 / alpha)

    def refuted(candidate: Floats) -> Floats:
        mean = ((population * candidate - before) / left).clip(0, 1)
        with np.errstate(divide="ignore"):
            bet = np.minimum(bets, TRUNCATION / mean)
        return np.log1p(bet * (values - mean)).cumsum(axis=0).max(axis=0) >= threshold

    start = outside
    never = np.logical_not(refuted(outside))
    for _ in range(HALVINGS):
        middle = (outside + inside) / 2
        out = refuted(middle)
        outside, inside = np.where(out, middle, outside), np.where(out, inside, middle)
    return np.where(never, start, outside)


def _bets(values: Floats, alpha: float) -> Floats:
    """Return the bets ``[n, columns]`` of the predictable plug-in, each from the values before it."""
    t = np.arange(1, len(values) + 1)[:, None]
    means = (0.5 + values.cumsum(axis=0)) / (t + 1)
    variances = (0.25 + ((values - means) ** 2).cumsum(axis=0)) / (t + 1)
    earlier = np.concatenate([np.full((1, values.shape[1]), 0.25), variances[:-1]])
    bets: Floats = np.sqrt(2 * log(2 / alpha) / (earlier * t * np.log1p(t)))
    return bets


@dataclass(frozen=True)
class Sampled:
    """Random draw of the samples of a result: ``population`` of them, until ``half_width`` was reached.

    ``bounds`` are those of the metric. Intervals hold for all ``methods`` together.
    """

    half_width: float
    population: int
    methods: int
    bounds: tuple[float, float]

    @property
    def alpha(self) -> float:
        """Error probability of one method's interval."""
        return (1 - LEVEL) / self.methods

    @property
    def span(self) -> float:
        """The largest difference of two values of the metric."""
        return self.bounds[1] - self.bounds[0]

    def interval(self, differences: Floats, spans: float = 1) -> Interval:
        """Return the interval of the mean over the population.

        ``differences [n]``, in the order of the draw, lie between ``-spans`` and ``spans`` times the metric's span.
        """
        low, high = self._ends(differences[:, None], -spans * self.span, spans * self.span)
        return Interval(float(low[0]), float(high[0]))

    def bands(self, values: Floats) -> tuple[Floats, Floats]:
        """Return the ends ``[steps]`` of the intervals of the metric's means, for ``values [steps, n]``, one by one."""
        return self._ends(values.T, *self.bounds)

    def _ends(self, values: Floats, least: float, most: float) -> tuple[Floats, Floats]:
        low, high = betting_interval(as_fractions(values, least, most), self.population, self.alpha)
        return least + (most - least) * low, least + (most - least) * high


def as_fractions(values: Floats, least: float, most: float) -> Floats:
    """Return ``values`` between ``least`` and ``most`` as fractions of the way, with rounding errors cut off."""
    fractions: Floats = (values - least) / (most - least)
    return np.where(np.abs(fractions - 0.5) < 0.5 + 1e-6, fractions.clip(0, 1), fractions)
