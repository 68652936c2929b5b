"""Pairs of methods on the same samples: by how much one gap exceeds another, and whether the data can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from captum_ablate.evaluation.curve import DeficitCurve
from captum_ablate.inputs.wording import number
from captum_ablate.statistics.confidence_sequence import Sampled
from captum_ablate.statistics.intervals import LEVEL, Floats, Interval
from captum_ablate.statistics.null import holm
from captum_ablate.statistics.ranking_noise import NO_NOISE, RankingNoise, interval_with, paired_p_with


@dataclass(frozen=True)
class Difference:
    """The gap of one method minus that of another, on the same samples.

    ``interval`` is ``statistics.intervals.bounded_interval`` over samples where the metric has bounds, else Student's t
    (or the confidence sequence, where samples were drawn ``until``). ``p_raw``, two-sided, is 0.05 where the interval
    ends at 0; ``p`` is corrected for all pairs of the comparison (Holm). Both are NaN where samples were drawn by
    results, and of a method and itself.
    """

    value: float
    interval: Interval
    p_raw: float
    p: float

    def __repr__(self) -> str:
        low, high = self.interval
        p = f"p {number('p', self.p)}" if number("p", self.p) else "no p"
        raw = f", p_raw {number('p', self.p_raw)}" if self.p_raw < self.p else ""
        return f"Difference({self.value:.3f} [{low:.3f}, {high:.3f}], {p}{raw})"


@dataclass(frozen=True, eq=False)
class Pairs:
    """All pairs of methods: ``gaps [methods, n]`` is what each sample adds to each gap.

    ``again`` is what a few samples add to it under the orders of the resampled rankings, ``[resamples, m]`` for each
    method (no rows for one that was not ranked again). The same resample of two methods is a pair, too. ``span`` is
    what no difference of two gaps on a sample exceeds, twice that of the metric, if it has bounds.
    """

    names: list[str]
    gaps: Floats
    sampled: Sampled | None
    again: Sequence[Floats] = ()
    span: float | None = None

    @classmethod
    def of(cls, curves: Sequence[DeficitCurve]) -> Pairs:
        """Return the pairs of the methods with these ``curves``, which are on the same samples."""
        gaps = np.stack([curve.gap_areas.numpy() for curve in curves])
        again = [curve.resampled_gap_areas.numpy() for curve in curves]
        return cls([curve.name for curve in curves], gaps, curves[0].sampled, again, difference_span(curves[0]))

    def difference(self, a: int, b: int) -> Difference:
        """Return the gap of method ``a`` minus that of ``b``."""
        apart = self.gaps[a] - self.gaps[b]
        noise = self._noise(a, b)
        interval = interval_with(noise, apart, self.span) if self.sampled is None else self.sampled.interval(apart, 2)
        p_raw, p = (values[min(a, b), max(a, b)] for values in (self._p_raw, self._p))
        return Difference(float(apart.mean()), interval, float(p_raw), float(p))

    def to_frame(self) -> pd.DataFrame:
        """Return one row per pair, best methods first: method, other, difference, low, high, p, p_raw."""
        best_first = np.argsort(-self.gaps.mean(axis=1), kind="stable").tolist()
        rows: list[dict[str, Any]] = []
        for first, second in combinations(best_first, 2):
            one = self.difference(first, second)
            names = {"method": self.names[first], "other": self.names[second]}
            value = {"difference": one.value, "difference_low": one.interval.low, "difference_high": one.interval.high}
            rows.append(names | value | {"p": one.p, "p_raw": one.p_raw})
        columns = ["method", "other", "difference", "difference_low", "difference_high", "p", "p_raw"]
        return pd.DataFrame(rows, columns=columns)

    @cached_property
    def better(self) -> NDArray[np.bool_]:
        """``[methods, methods]``: whether the row's gap is above the column's, at 5 % for all pairs together."""
        if self.sampled is not None:  # sequences hold for all methods together, so those that do not overlap differ
            low, high = np.array([self.sampled.interval(gap) for gap in self.gaps]).T
            return low[:, None] > high[None, :]
        means = self.gaps.mean(axis=1)
        p = np.fmin(self._p, self._p.T)  # the lower half of both is NaN
        above = means[:, None] > means[None, :]
        return (p <= 1 - LEVEL + 1e-12) & above

    @cached_property
    def _p_raw(self) -> Floats:
        """The paired p of each pair, in the upper half, ``[methods, methods]``; NaN elsewhere."""
        p = np.full((len(self.names), len(self.names)), np.nan)
        if self.sampled is None:
            for a, b in combinations(range(len(self.names)), 2):
                p[a, b] = paired_p_with(self._noise(a, b), self.gaps[a] - self.gaps[b], self.span)
        return p

    def _noise(self, a: int, b: int) -> RankingNoise:
        if not self.again:
            return NO_NOISE
        one, other = self.again[a], self.again[b]
        if len(one) and len(other):
            return RankingNoise.of(one - other)
        return RankingNoise.of(one if len(one) else other)

    @cached_property
    def _p(self) -> Floats:
        return holm(self._p_raw.ravel()).reshape(self._p_raw.shape)


def difference_span(curve: DeficitCurve) -> float | None:
    """Return what no difference of two gaps on one sample exceeds: None for a metric without bounds."""
    bounds = curve.provenance.bounds
    return None if bounds is None else 2 * (bounds[1] - bounds[0])
