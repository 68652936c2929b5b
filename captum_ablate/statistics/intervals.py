"""Intervals and tests for means over samples, and over samples and random orders together."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

LEVEL = 0.95
"""Confidence of every interval."""


class Interval(NamedTuple):
    """A 95 % confidence interval; both ends NaN where the sample is too small for one."""

    low: float
    high: float


def mean_interval(values: Floats) -> Interval:
    """Return Student's t interval of the mean of ``values [n]``."""
    n = len(values)
    if n < 2:
        return Interval(np.nan, np.nan)
    return _t_interval(float(values.mean()), float(values.var(ddof=1)) / n, n - 1)


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
    return ratio, _t_interval(ratio, variance, len(above) - 1)


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
    return _t_interval(float(grand), total / (n * orders), degrees)


def exceedance_p(value: float, null: Floats) -> float:
    """Return the permutation p of ``value`` among ``null [orders]``: (1 + #{null >= value}) / (orders + 1)."""
    return float((1 + (null >= value).sum()) / (len(null) + 1))


def better_than(values: Floats) -> NDArray[np.bool_]:
    """Return ``[methods, methods]``: whether the row's mean is above the column's, for ``values [methods, n]``.

    Paired t tests over samples, two-sided at 5 %, Holm's correction over all pairs.
    """
    methods, n = values.shape
    better = np.zeros((methods, methods), dtype=np.bool_)
    pairs = list(combinations(range(methods), 2))
    if n < 2 or not pairs:
        return better
    p = np.array([_paired_p(values[a] - values[b]) for a, b in pairs])
    for rank, k in enumerate(np.argsort(p, kind="stable")):
        if p[k] > (1 - LEVEL) / (len(pairs) - rank):
            break
        a, b = pairs[k]
        first = values[a].mean() > values[b].mean()
        better[(a, b) if first else (b, a)] = True
    return better


def _paired_p(difference: Floats) -> float:
    spread = difference.std(ddof=1)
    if spread == 0:
        return 1.0 if difference[0] == 0 else 0.0
    t = difference.mean() / (spread / np.sqrt(len(difference)))
    return float(2 * stats.t.sf(abs(t), len(difference) - 1))


def _t_interval(mean: float, variance: float, degrees: float) -> Interval:
    half = float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * np.sqrt(max(variance, 0.0))
    return Interval(float(mean - half), float(mean + half))
