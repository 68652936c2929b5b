"""What came of a layer's spectrum: its eigenvalues, its power law, how redundant and how smooth that makes its code."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from torch import Tensor

from captum_ablate.diagnostics import pictures
from captum_ablate.diagnostics.power_law import PowerLaw, effective_rank, participation_ratio
from captum_ablate.statistics.intervals import LEVEL, Interval


@dataclass(frozen=True, eq=False)
class ActivationSpectrum:
    """The spectrum of one layer's covariance, and its power law where the layer is wide enough for one.

    ``eigenvalues [units]``, largest first, of the covariance of ``n`` samples. ``fit`` is the straight line through
    the ranks ``fit_range`` of them. ``replicates [replicates]`` are exponents of bootstrapped samples. Where
    ``refusal`` says why there is no fit, ``alpha`` is NaN and the dimensionality alone remains.
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

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.eigenvalues)

    @property
    def bias(self) -> float:
        """How much steeper few samples make the spectrum, as the bootstrap sees it: mean replicate minus fit."""
        return float(self.replicates.mean()) - self.fit.alpha if len(self.replicates) else nan

    @property
    def alpha(self) -> float:
        """Exponent of the decay, eigenvalue i ~ i^-alpha, > 0 for decay: that of the fit minus its ``bias``.

        Finite samples spread eigenvalues, which steepens the fit by about as much as the bootstrap steepens it once
        more. About: the flatter the spectrum and the fewer the samples for each unit, the more is left of it.
        """
        return self.fit.alpha - (self.bias if isfinite(self.bias) else 0.0)

    @property
    def standard_error(self) -> float:
        """Standard deviation of the bootstrapped exponents, for as many groups of samples as were drawn."""
        if len(self.replicates) < 2:
            return nan
        return float(self.replicates.std()) * (self.groups / (self.groups - 1)) ** 0.5

    @property
    def interval(self) -> Interval:
        """95 % interval of ``alpha`` over samples."""
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

        A statement about how the spectrum would go on: every network of ReLUs is differentiable almost everywhere.
        """
        if self.refusal is not None:
            return "refused"
        low, high = self.interval
        if low > self.threshold:
            return "smooth"
        return "non-smooth" if high < self.threshold else "undecided"

    @property
    def participation_ratio(self) -> float:
        """(sum of eigenvalues)^2 / sum of squares: how many dimensions share the variance, 1 .. units."""
        return participation_ratio(self.eigenvalues)

    @property
    def effective_rank(self) -> float:
        """exp of the entropy of the shares of variance, 1 .. units."""
        return effective_rank(self.eigenvalues)

    @property
    def redundancy(self) -> float:
        """1 - participation ratio / units: 0 for a white code, near 1 where few directions hold the variance."""
        return 1 - self.participation_ratio / self.units

    @property
    def static_energy(self) -> float:
        """Half the total variance, sum of eigenvalues / 2 (the supplement's mean energy; not that of a trajectory)."""
        return float(self.eigenvalues.sum()) / 2

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
        """Return the figures of the layer by name, for a row of a table."""
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
        }

    def plot(self, ax: Any = None) -> Any:
        """Draw the spectrum on logarithmic axes with its fit and the slope of the threshold; return the axes."""
        return pictures.spectrum(self.to_frame(), title=self.title, subtitle=self.finding, slope=self.threshold, ax=ax)

    @property
    def title(self) -> str:
        """Layer, units and samples, in a line."""
        return f"Spectrum of {self.layer} ({self.units:,} units, {self.n:,} samples)"

    @property
    def finding(self) -> str:
        """Exponent, fit and dimensionality, in a line."""
        dimensions = f"participation ratio {self.participation_ratio:.1f} of {self.units}"
        if self.refusal is not None:
            return f"no power law fitted; {dimensions}"
        low, high = self.interval
        return f"alpha {self.alpha:.2f} [{low:.2f}, {high:.2f}], R2 {self.r2:.3f}, {self.verdict}; {dimensions}"

    def __repr__(self) -> str:
        why = f"; {self.refusal}" if self.refusal else f" over ranks {self.fit_range}"
        return f"ActivationSpectrum({self.layer!r}: {self.finding}{why})"
