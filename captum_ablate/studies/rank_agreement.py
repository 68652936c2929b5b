"""Do two scores put the same units first? Rank correlation over all units, and the overlap of the two top sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy import stats

from captum_ablate.evaluation.labels import headed, name_labels
from captum_ablate.inputs.values import as_real
from captum_ablate.inputs.wording import counted
from captum_ablate.statistics.intervals import LEVEL, Interval

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RankAgreement:
    """Spearman's ``rho`` of two scores with its bootstrap ``interval`` over units, and the overlap of their tops.

    ``overlap`` is the share of one score's ``k`` top units that are also among the other's. For unrelated scores it is
    ``chance`` = k / units on average, and at least as large with probability ``overlap_p`` (hypergeometric).
    ``overlap_interval`` turns the exact interval of the odds ratio (Fisher's noncentral hypergeometric law) into
    overlaps. It lies above ``chance`` where the two-sided exact test at 5 % rejects independence that way.
    """

    scores: Floats
    deficits: Floats
    rho: float
    interval: Interval
    k: int
    overlap: float
    overlap_interval: Interval
    overlap_p: float

    @property
    def n(self) -> int:
        """Number of units compared."""
        return len(self.scores)

    @property
    def chance(self) -> float:
        """Overlap of unrelated scores on average."""
        return self.k / self.n

    def to_frame(self) -> pd.DataFrame:
        """Return one row: units, rho, low, high, k, overlap, overlap_low, overlap_high, chance, overlap_p."""
        return pd.DataFrame(
            [
                {
                    "units": self.n,
                    "rho": self.rho,
                    "low": self.interval.low,
                    "high": self.interval.high,
                    "k": self.k,
                    "overlap": self.overlap,
                    "overlap_low": self.overlap_interval.low,
                    "overlap_high": self.overlap_interval.high,
                    "chance": self.chance,
                    "overlap_p": self.overlap_p,
                }
            ]
        )

    def plot(self, ax: Axes | None = None, *, names: tuple[str, str] = ("score", "deficit")) -> Axes:
        """Draw each unit's rank by one score against that by the other, the shared top set in red; return the axes."""
        if ax is None:
            _, ax = plt.subplots(figsize=(5.4, 5.0), layout="constrained")
        first, second = (stats.rankdata(-values) for values in (self.scores, self.deficits))
        both = (first <= self.k) & (second <= self.k)
        ax.axvspan(0.5, self.k + 0.5, color="#b5b5b5", alpha=0.25, linewidth=0)
        ax.axhspan(0.5, self.k + 0.5, color="#b5b5b5", alpha=0.25, linewidth=0)
        ax.plot(first[~both], second[~both], ".", color="#0072b2", markersize=5, alpha=0.6)
        ax.plot(first[both], second[both], ".", color="#d55e00", markersize=7)
        ax.set(xlim=(self.n + 0.5, 0.5), ylim=(self.n + 0.5, 0.5))
        x, y = name_labels(names, lines=2)
        ax.set(xlabel=f"rank by {x} (1 = top)", ylabel=f"rank by {y} (1 = top)")
        low, high = self.interval
        note = f"{counted(self.n, 'unit')}; the top {self.k} share {self.overlap:.0%} (chance {self.chance:.0%})"
        headed(ax, f"rho = {self.rho:.2f} [{low:.2f}, {high:.2f}]", note, size=10)
        ax.spines[["top", "right"]].set_visible(False)
        return ax

    def __repr__(self) -> str:
        low, high = self.interval
        return (
            f"RankAgreement({counted(self.n, 'unit')}: rho {self.rho:.3f} [{low:.3f}, {high:.3f}], top {self.k} share "
            f"{self.overlap:.3f}, chance {self.chance:.3f})"
        )


def rank_agreement(
    scores: Any, deficits: Any, *, top: float = 0.1, resamples: int = 2000, seed: int = 0
) -> RankAgreement:
    """Compare two scores of the same units, such as a probe's ``[units]`` with measured deficits ``[units]``.

    Probe against ablation is the question of Hayne et al. (2022, arXiv 2211.04367); the two figures are our reading.
    Noise in measured deficits draws ``rho`` towards 0. Compare the deficits of two halves of the samples as well.

    Args:
        scores: ``[units]``, higher is more important.
        deficits: the other score, ``[units]``.
        top: the share of units in the two top sets, rounded up. Ties at their edge are broken at random.
        resamples: of the bootstrap over units (percentile interval).
        seed: of the bootstrap and the ties.

    Raises:
        ValueError: if a score is constant or not finite, the two differ in length, or there are fewer than 4 units.

    Example:
        >>> from captum_ablate import rank_agreement
        >>> found = rank_agreement([1.0, 2.0, 3.0, 4.0, 5.0], [0.1, 0.3, 0.2, 0.4, 0.9], top=0.4)
        >>> round(found.rho, 2), found.overlap
        (0.9, 1.0)
    """
    a, b = _values(scores, "scores"), _values(deficits, "deficits")
    if len(a) != len(b):
        raise ValueError(f"scores and deficits must be of the same units; got {len(a)} and {len(b)}")
    if len(a) < 4:
        raise ValueError(f"at least 4 units are needed to compare two rankings; got {len(a)}")
    if not 0 < top < 1:
        raise ValueError(f"top must be a share of the units between 0 and 1; got {top!r}")
    for name, values in (("scores", a), ("deficits", b)):
        if values.min() == values.max():
            raise ValueError(f"{name} must differ between units, or there is no ranking; all are {values[0]:g}")
    random = np.random.default_rng(seed)
    k = int(np.ceil(top * len(a) - 1e-9))
    ties = random.permutation(len(a))
    shared = len({*_top(a, k, ties)} & {*_top(b, k, ties[::-1])})
    drawn = random.integers(0, len(a), size=(resamples, len(a)))
    low, high = np.nanpercentile(_rank_correlations(a[drawn], b[drawn]), [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return RankAgreement(
        scores=a,
        deficits=b,
        rho=float(_rank_correlations(a[None], b[None])[0]),
        interval=Interval(float(low), float(high)),
        k=k,
        overlap=shared / k,
        overlap_interval=_overlap_interval(shared, k, len(a)),
        overlap_p=float(stats.hypergeom.sf(shared - 1, len(a), k, k)),
    )


def _values(values: Any, name: str) -> Floats:
    """Return a score as float64 ``[units]``; raise where it is of another shape or not finite."""
    found = as_real(values, name).numpy()
    if found.ndim != 1:
        raise ValueError(f"{name} must have one value for each unit, [units]; got shape {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name} must be finite; leave out units without a score (dead ones, say) from both")
    return found


def _top(values: Floats, k: int, ties: NDArray[np.int64]) -> list[int]:
    """Return the ``k`` units of highest value, ties in the order of ``ties``."""
    best: list[int] = ties[np.argsort(-values[ties], kind="stable")][:k].tolist()
    return best


def _rank_correlations(a: Floats, b: Floats) -> Floats:
    """Return Spearman's rho of each row of ``a`` and ``b [rows, units]``; NaN where a row is constant."""
    a, b = (
        ranks - ranks.mean(axis=1, keepdims=True) for ranks in (stats.rankdata(a, axis=1), stats.rankdata(b, axis=1))
    )
    with np.errstate(invalid="ignore"):
        found: Floats = (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return found


def _overlap_interval(shared: int, k: int, n: int) -> Interval:
    """Return the exact interval of the odds ratio of being in both top sets, as the overlap at each end."""
    table = [[shared, k - shared], [k - shared, n - 2 * k + shared]]
    ends = stats.contingency.odds_ratio(table, kind="conditional").confidence_interval(LEVEL)

    def overlap(odds: float) -> float:
        if odds == 0 or np.isinf(odds):
            return max(0, 2 * k - n) / k if odds == 0 else 1.0
        return float(stats.nchypergeom_fisher(n, k, k, odds).mean()) / k

    return Interval(overlap(ends.low), overlap(ends.high))
