"""The eigenspectrum of a layer's activations: how redundant its code is and, by the decay, how smooth.

The idea is Marshall and Kirchner's (2024, arXiv 2401.17975). The threshold of smoothness is Stringer et al.'s (2019),
quoted from memory. The range of the fit, its calibration by simulated codes and the default units are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from captum_ablate.diagnostics import pictures
from captum_ablate.diagnostics.bootstrap import FourthMoments, GroupedCovariance, draw
from captum_ablate.diagnostics.gaussian_codes import Calibrated, calibrated
from captum_ablate.diagnostics.power_law import (
    PowerLaw,
    default_range,
    effective_rank,
    exponents,
    fit_power_law,
    participation_ratio,
    rank_of,
    too_few_ranks,
    too_few_samples,
)
from captum_ablate.inputs.wording import counted, visible
from captum_ablate.statistics.intervals import LEVEL, Interval

FEWEST_SAMPLES = 5
"""Gaussian samples for each direction that varies, below which intervals fall short: of 3, they hold 0.89 to 0.93."""
HEAVIEST = FourthMoments(mixed=1.5, slope=2.0)
"""Fourth moments above which intervals fall short; those of layers of trained networks are mostly 1.1 to 1.4."""


@dataclass(frozen=True, eq=False)
class ActivationSpectrum:
    """The spectrum of one layer's covariance, and its power law where the layer is wide enough for one.

    ``eigenvalues [units]``, largest first, belong to the covariance of ``n`` samples. ``fit`` is the straight line
    through their ranks ``fit_range``, and ``calibrated`` its exponent less what few samples do to it, with a standard
    error (None if there is none). ``moments`` are fourth moments. ``replicates [replicates]`` are the exponents of
    bootstrapped samples, plain fits. If there is no fit, ``refusal`` says why and ``alpha`` is NaN; the dimensionality
    remains. If there is no interval, ``no_interval`` says why.
    """

    layer: str
    eigenvalues: Tensor
    n: int
    stimulus_dim: float
    fit_range: tuple[int, int] | None
    fit: PowerLaw
    replicates: Tensor
    groups: int
    refusal: str | None = None
    moments: FourthMoments | None = None
    calibrated: Calibrated | None = None

    @classmethod
    def of(
        cls,
        layer: str,
        grouped: GroupedCovariance,
        *,
        fit_range: tuple[int, int] | None = None,
        stimulus_dim: float = inf,
        replicates: int = 200,
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
    ) -> ActivationSpectrum:
        """Return the spectrum of the samples in ``grouped``, with its power law or the reason why it has none.

        ``dtype`` is that of the layer: eigenvalues below what it rounds do not count.

        Raises:
            ValueError: if there are fewer than two samples.
        """
        total = grouped.total
        if total.count < 2:
            raise ValueError(f"a covariance needs at least two samples; layer {layer!r} got {total.count}")
        values, n, groups = total.eigenvalues, total.count, len(grouped.groups)
        noise = torch.finfo(dtype).eps ** 2 * total.largest_square if dtype.is_floating_point else 0.0
        rank = rank_of(values, noise)
        ranks = fit_range or default_range(rank)
        boot = values.new_zeros(0)
        refusal = too_few_ranks(ranks, rank, len(values), n, is_default=fit_range is None)
        if refusal is None and groups > 1 and replicates:
            resampled = grouped.resampled(draw(replicates, groups, seed))  # [replicates, units]
            refusal = too_few_samples(ranks, min(rank_of(one, noise) for one in resampled), n)
            boot = exponents(resampled, ranks) if refusal is None else boot
        if refusal is not None:
            return cls(layer, values, n, stimulus_dim, None, PowerLaw(nan, nan, nan), boot, groups, refusal)
        fit = fit_power_law(values, ranks)
        if not len(boot):
            return cls(layer, values, n, stimulus_dim, ranks, fit, boot, groups)
        moments, live = grouped.fourth_moments(ranks), values[:rank]
        samples, found = n / max(1.0, moments.mixed), None
        if samples >= FEWEST_SAMPLES * rank:
            found = calibrated(live, samples, ranks, simulations=replicates, seed=seed)
        return cls(layer, values, n, stimulus_dim, ranks, fit, boot, groups, None, moments, found)

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.eigenvalues)

    @property
    def bias(self) -> float:
        """How much few samples steepen the fit: its exponent minus ``alpha``."""
        return self.fit.alpha - self.alpha

    @property
    def alpha(self) -> float:
        """Exponent of the decay, eigenvalue i ~ i^-alpha, > 0 for decay, less what few samples add to it.

        Finite samples spread the eigenvalues, which steepens the fit. ``calibrated`` takes that off. Where samples are
        too few for it, the bootstrap does, which steepens the fit once more by about as much. Without replicates it is
        the exponent of the fit.
        """
        if self.calibrated is not None:
            return self.calibrated.alpha
        return 2 * self.fit.alpha - float(self.replicates.mean()) if len(self.replicates) else self.fit.alpha

    @property
    def standard_error(self) -> float:
        """Standard error of ``alpha``: that of Gaussian codes, and more where the layer's fourth moments say so."""
        if self.calibrated is None or self.moments is None:
            return nan
        return self.calibrated.standard_error * max(1.0, self.moments.slope) ** 0.5

    @property
    def no_interval(self) -> str | None:
        """Why ``alpha`` has no interval, and what to do; None where it has one."""
        if self.refusal is not None:
            return self.refusal
        if self.moments is None:
            return "no replicates" if self.groups > 1 else "too many units to keep groups of samples in memory"
        if self.moments.mixed > HEAVIEST.mixed or self.moments.slope > HEAVIEST.slope:
            mixed, slope = (round(one, 2) for one in self.moments)
            return (
                f"heavy tails: fourth moments are {mixed} (mixed) and {slope} (of slopes), 1 for Gaussian codes, and "
                f"intervals hold up to {HEAVIEST.mixed} and {HEAVIEST.slope}; take another layer, or bring its samples "
                "to one length"
            )
        if self.calibrated is None:
            return f"too few samples: bring {FEWEST_SAMPLES} for each unit, more where tails are heavy"
        return None

    @property
    def interval(self) -> Interval:
        """95 % interval of ``alpha`` over samples, NaN where ``no_interval`` says why.

        By simulation it holds the exponent in 0.93 to 0.98 of Gaussian codes, in 0.91 to 0.95 where lengths of samples
        vary (mixed fourth moment 1.3), and in 0.88 to 0.93 where directions have Laplace's tails.
        """
        if self.no_interval is not None:
            return Interval(nan, nan)
        half = float(stats.t.ppf((1 + LEVEL) / 2, max(1, self.groups - 1))) * self.standard_error
        return Interval(self.alpha - half, self.alpha + half)

    @property
    def r2(self) -> float:
        """Share of the variance of log eigenvalues in the range that the straight line explains."""
        return self.fit.r2

    @property
    def threshold(self) -> float:
        """1 + 2 / d: a code of d-dimensional stimuli can be differentiable only if it decays faster."""
        return 1 + 2 / self.stimulus_dim

    @property
    def verdict(self) -> str:
        """ "smooth", "non-smooth" or "undecided", by the interval against the threshold; "refused" without a fit.

        The verdict is about how the spectrum would continue. A network of ReLUs itself is differentiable almost
        everywhere.
        """
        if self.refusal is not None:
            return "refused"
        low, high = self.interval
        if low > self.threshold:
            return "smooth"
        return "non-smooth" if high < self.threshold else "undecided"

    @property
    def participation_ratio(self) -> float:
        """(sum of eigenvalues)^2 / sum of squares: the number of dimensions that share the variance, 1 .. units."""
        return participation_ratio(self.eigenvalues)

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of the shares of variance (Roy and Vetterli 2007), 1 .. units."""
        return effective_rank(self.eigenvalues)

    @property
    def redundancy(self) -> float:
        """1 - participation ratio / units: 0 for a white code, near 1 where few directions hold the variance."""
        return 1 - self.participation_ratio / self.units

    @property
    def static_energy(self) -> float:
        """Half the total variance, sum of eigenvalues / 2 (the supplement's mean energy; not that of a trajectory)."""
        return float(self.eigenvalues.sum()) / 2

    @property
    def title(self) -> str:
        """Layer, units and samples, in a line."""
        return f"Spectrum of {visible(self.layer)} ({counted(self.units, 'unit')}, {counted(self.n, 'sample')})"

    @property
    def finding(self) -> str:
        """Exponent, fit and dimensionality, in a line."""
        dimensions = f"participation ratio {self.participation_ratio:.1f} of {self.units}"
        if self.refusal is not None:
            return f"no power law fitted; {dimensions}"
        low, high = self.interval
        interval = f"[{low:.2f}, {high:.2f}]" if self.no_interval is None else "(no interval)"
        return f"alpha {self.alpha:.2f} {interval}, R2 {self.r2:.3f}, {self.verdict}; {dimensions}"

    def to_frame(self) -> pd.DataFrame:
        """Return one row per rank: layer, rank, eigenvalue, share (of the variance), fitted (NaN outside the range)."""
        rank = np.arange(1, self.units + 1)
        fitted = np.exp(self.fit.level - self.fit.alpha * np.log(rank))
        if self.fit_range is not None:
            fitted[(rank < self.fit_range[0]) | (rank > self.fit_range[1])] = nan
        values = self.eigenvalues.numpy()
        total = values.sum()
        share = values / total if total > 0 else np.full_like(values, nan)
        return pd.DataFrame({"layer": self.layer, "rank": rank, "eigenvalue": values, "share": share, "fitted": fitted})

    def summary(self) -> dict[str, Any]:
        """Return the layer's figures by name, for a row of a table."""
        low, high = self.interval
        return {
            "layer": self.layer,
            "units": self.units,
            "n": self.n,
            "alpha": self.alpha,
            "low": low,
            "high": high,
            "fit_range": "" if self.fit_range is None else f"{self.fit_range[0]}-{self.fit_range[1]}",
            "r2": self.r2,
            "threshold": self.threshold,
            "verdict": self.verdict,
            "participation_ratio": self.participation_ratio,
            "effective_rank": self.effective_rank,
            "redundancy": self.redundancy,
            "refusal": self.refusal or "",
            "no_interval": self.no_interval or "",
        }

    def plot(self, ax: Any = None) -> Any:
        """Draw the spectrum on logarithmic axes with its fit and the slope of the threshold; return the axes."""
        return pictures.spectrum(self.to_frame(), title=self.title, subtitle=self.finding, slope=self.threshold, ax=ax)

    def __repr__(self) -> str:
        why = f"; {self.refusal}" if self.refusal else f" over ranks {self.fit_range}"
        why += f"; no interval: {self.no_interval}" if self.no_interval and not self.refusal else ""
        return f"ActivationSpectrum({self.layer!r}: {self.finding}{why})"
