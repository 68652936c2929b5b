"""Intervals and tests for means over samples, and over samples and random orders together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

LEVEL = 0.95
"""Confidence of every interval."""

FEWEST_NETWORKS = 5
"""Networks that an interval over networks needs: t from fewer says next to nothing."""


class Interval(NamedTuple):
    """A 95 % confidence interval; both ends NaN where the sample is too small for one."""

    low: float
    high: float


NO_INTERVAL = Interval(float("nan"), float("nan"))
"""The interval where there is none."""


def mean_interval(values: Floats) -> Interval:
    """Return Student's t interval of the mean of ``values [n]``."""
    n = len(values)
    if n < 2:
        return Interval(np.nan, np.nan)
    return t_interval(float(values.mean()), float(values.var(ddof=1)) / n, n - 1)


def over_networks(values: Floats) -> Interval:
    """Return Student's t interval of the mean of ``values [networks]``, NaN for fewer than ``FEWEST_NETWORKS``."""
    return mean_interval(values) if len(values) >= FEWEST_NETWORKS else Interval(np.nan, np.nan)


def rank_intervals(ranks: Floats) -> list[Interval]:
    """Return the interval over networks of each method's mean rank, from ``ranks [methods, networks]``.

    A method that is first in each of a few networks is not first in all. So two more squared deviations are added to
    the spread of its ranks, of the size that ranks of all methods show on average, and of one place at least.
    Student's t with that spread, within the ranks 1 to ``methods``. The rule is ours, as that of ``bounded_interval``.
    """
    methods, networks = ranks.shape
    if networks < FEWEST_NETWORKS:
        return [Interval(np.nan, np.nan)] * methods
    spread = ranks.var(axis=1, ddof=1)
    spread += 2 * max(float(spread.mean()), 1.0) / (networks - 1)
    half = stats.t.ppf((1 + LEVEL) / 2, networks - 1) * np.sqrt(spread / networks)
    means = ranks.mean(axis=1)
    ends = np.clip([means - half, means + half], 1, methods)
    return [Interval(float(low), float(high)) for low, high in ends.T]


def bounded_interval(values: Floats, span: float) -> Interval:
    """Return the interval of the mean of ``values [n]``, none of which can be further than ``span`` from 0.

    Student's t for common changes, and wider where few of the samples make the spread, such as the 1 to 5 % whose
    label an ablation changes. There t covers the mean in 0.2 to 0.9 of cases. With S2 and S4 the sums of squared and
    fourth powers of the deviations from the mean, two more deviations of squared size
    r2 = S4 / S2 + (span^2 - S4 / S2) / (1 + (S2^2 / S4)^2) are added to S2. S2^2 / S4 is the number of samples that
    make the spread. Without one, r2 is span^2: what was not seen in n samples may still be as large. The rule is ours,
    after Agresti and Coull's (1998) two successes and two failures.
    """
    n = len(values)
    if n < 2:
        return Interval(np.nan, np.nan)
    mean, half = float(values.mean()), float(_bounded_half(values[None], span)[0])
    return Interval(max(mean - half, min(-span, mean)), min(mean + half, max(span, mean)))


def bounded_bands(values: Floats, bounds: tuple[float, float]) -> tuple[Floats, Floats]:
    """Return the ends of the ``bounded_interval`` of the row means of ``values [steps, n]``, within ``bounds``."""
    if values.shape[1] < 2:
        return np.full(len(values), np.nan), np.full(len(values), np.nan)
    low, high = bounds
    mean, half = values.mean(axis=1), _bounded_half(values, high - low)
    return np.maximum(mean - half, np.minimum(low, mean)), np.minimum(mean + half, np.maximum(high, mean))


def ratio_interval(above: Floats, below: Floats) -> tuple[float, Interval]:
    """Return the ratio of the means of ``above [n]`` and ``below [n]``, measured on the same samples, and its interval.

    By the delta method: the residuals ``above - ratio * below`` over the mean of ``below``. NaN where that mean is 0.
    """
    bottom = float(below.mean())
    if bottom == 0:
        return float("nan"), Interval(np.nan, np.nan)
    ratio = float(above.mean()) / bottom
    if len(above) < 2:
        return ratio, Interval(np.nan, np.nan)
    variance = float((above - ratio * below).var(ddof=1)) / (len(above) * bottom**2)
    return ratio, t_interval(ratio, variance, len(above) - 1)


def mean_bands(values: Floats) -> tuple[Floats, Floats]:
    """Return the ends of Student's t intervals of the row means of ``values [steps, n]``, each ``[steps]``."""
    n = values.shape[1]
    if n < 2:
        return np.full(len(values), np.nan), np.full(len(values), np.nan)
    half = stats.t.ppf((1 + LEVEL) / 2, n - 1) * values.std(axis=1, ddof=1) / np.sqrt(n)
    return values.mean(axis=1) - half, values.mean(axis=1) + half


def two_way_interval(values: Floats) -> Interval:
    """Return the interval of the grand mean of ``values [n, orders]``, both axes being random samples.

    Two-way analysis of variance without replication: the variance of the grand mean is
    (MS_samples + MS_orders - MS_rest) / (n orders), with Satterthwaite's degrees of freedom.
    """
    n, orders = values.shape
    if n < 2 or orders < 2:
        return Interval(np.nan, np.nan)
    grand = values.mean()
    rows, columns = values.mean(axis=1) - grand, values.mean(axis=0) - grand
    rest = values - grand - rows[:, None] - columns
    squares = np.array(
        [
            orders * (rows**2).sum() / (n - 1),
            n * (columns**2).sum() / (orders - 1),
            (rest**2).sum() / ((n - 1) * (orders - 1)),
        ]
    )
    signs, freedom = np.array([1, 1, -1]), np.array([n - 1, orders - 1, (n - 1) * (orders - 1)])
    total = float(signs @ squares)
    if total <= max(squares[0], squares[1]):  # the rest outweighs one source: count the other alone
        larger = int(squares[:2].argmax())
        total, degrees = float(squares[larger]), float(freedom[larger])
    else:
        degrees = total**2 / float((squares**2 / freedom).sum())
    return t_interval(float(grand), total / (n * orders), degrees)


def paired_p(difference: Floats, span: float | None = None) -> float:
    """Return the two-sided p that the mean of ``difference [n]`` is 0: 0.05 where the interval ends at 0.

    With a ``span``, which no difference exceeds, the interval is ``bounded_interval``. Without one it is Student's t,
    so p is that of the paired t test. Differences that are all the same have no spread for a t: their sign decides
    alone then, p is 2^(1 - n), and 1 where they are 0. NaN for fewer than two samples.
    """
    n = len(difference)
    if n < 2:
        return float("nan")
    mean = float(difference.mean())
    if span is not None:
        return float(2 * stats.t.sf(abs(mean) / mean_error(difference, span), n - 1))
    spread = float(difference.std(ddof=1))
    if spread <= 1e-12 * abs(mean) or spread == 0:
        return 1.0 if mean == 0 else 2.0 ** (1 - n)
    return float(2 * stats.t.sf(abs(mean) / (spread / np.sqrt(n)), n - 1))


def mean_error(values: Floats, span: float | None = None) -> float:
    """Return the standard error of the mean of ``values [n]``; with a ``span``, that of ``bounded_interval``."""
    if span is None:
        return float(values.std(ddof=1)) / np.sqrt(len(values))
    return float(_bounded_half(values[None], span)[0] / stats.t.ppf((1 + LEVEL) / 2, len(values) - 1))


def _bounded_half(values: Floats, span: float) -> Floats:
    """Return half the width of ``bounded_interval`` of each row of ``values [rows, n]``, ``[rows]``."""
    n = values.shape[1]
    shares = ((values - values.mean(axis=1, keepdims=True)) / span) ** 2  # of the largest square
    second, fourth = shares.sum(axis=1), (shares**2).sum(axis=1)
    seen = second > n * np.finfo(np.float64).eps ** 2  # less is the rounding of a mean
    size = np.divide(fourth, second, out=np.zeros_like(second), where=seen)
    effective = np.divide(second**2, fourth, out=np.zeros_like(second), where=seen)
    extra = 2 * (size + np.maximum(1 - size, 0) / (1 + effective**2))
    t = stats.t.ppf((1 + LEVEL) / 2, n - 1)
    half: Floats = span * t * np.sqrt((second + extra) / (n - 1) / n)
    return half


def t_interval(mean: float, variance: float, degrees: float) -> Interval:
    """Return Student's t interval of a mean whose variance is known to so many ``degrees`` of freedom."""
    half = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * np.sqrt(max(variance, 0.0))
    return Interval(float(mean - half), float(mean + half))
