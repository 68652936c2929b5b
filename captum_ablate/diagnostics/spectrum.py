"""The eigenspectrum of a layer's activations: how redundant, and by its decay how smooth, the code of a layer is.

The idea is Marshall and Kirchner's (2024, arXiv 2401.17975); the threshold of smoothness is Stringer et al.'s (2019),
as we recall it. Range of the fit, bootstrap and the default units are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite, nan
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from torch import Tensor

from captum_ablate.activations import pooled_pass
from captum_ablate.covariance import processes
from captum_ablate.data import UnpackBatch
from captum_ablate.diagnostics import pictures
from captum_ablate.diagnostics.power_law import (
    DECADES,
    PowerLaw,
    default_range,
    effective_rank,
    exponents,
    fit_power_law,
    participation_ratio,
    rank_of,
)
from captum_ablate.diagnostics.resampling import GroupedCovariance, draw, groups_for
from captum_ablate.diagnostics.unlabelled import unlabelled_batches
from captum_ablate.intervals import LEVEL, Interval
from captum_ablate.layers import (
    ForwardFunc,
    Layer,
    as_model,
    find_layer,
    layer_name,
    refuse_training_mode,
    warn_of_positions,
)
from captum_ablate.progress import over
from captum_ablate.unchanged import unchanged
from captum_ablate.units import UnitAxis


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

        Finite samples spread eigenvalues, which steepens the fit by as much as the bootstrap steepens it once more.
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


def activation_spectrum(
    forward_func: ForwardFunc,
    layer: Layer | Sequence[Layer],
    data: Any,
    *,
    fit_range: tuple[int, int] | None = None,
    stimulus_dim: float = inf,
    unit_dim: int | None = 1,
    layer_mask: Tensor | None = None,
    replicates: int = 200,
    seed: int = 0,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    show_progress: bool = False,
) -> Any:
    """Return the ``ActivationSpectrum`` of a layer: the eigenvalues of its covariance and their power law.

    Activations are averaged over positions (channels are units), centred, not scaled, and never held together: memory
    is one batch and ``units x units``. Under ``torch.distributed`` each process passes its shard of the data and all
    get the spectrum of the whole.

    Args:
        layer: a module or its dotted name; a list of them shares one pass, and one bootstrap, and gives a list.
        data: inputs alone, ``(inputs, target)``, or an iterable of batches with or without labels, which are not used.
        fit_range: first and last rank of the fit, from 1; by default 10 .. min(rank / 2, 500), and at least half a
            decade. A layer too narrow for it gets no fit but a reason, ``refusal``.
        stimulus_dim: d of the threshold 1 + 2 / d; infinite for natural images, 1 for a path of stimuli.
        unit_dim: axis of the units; None makes every element of the output a unit.
        replicates: bootstrap replicates, of 40 random groups of samples.

    Returns:
        One result; a list for a list of layers; a tuple where a layer gives a tuple of tensors.
    """
    _check(fit_range, stimulus_dim, replicates)
    model = as_model(forward_func)
    several = isinstance(layer, (list, tuple))
    named: list[Any] = list(layer) if isinstance(layer, (list, tuple)) else [layer]
    if not named:
        raise ValueError("the list of layers is empty; name at least one")
    layers = [find_layer(model, one) for one in named]
    axis = UnitAxis.of(unit_dim, layer_mask)
    batches = unlabelled_batches(data, forward_func=model, batch_size=batch_size, unpack_batch=unpack_batch)
    shapes: list[Any] = []
    with unchanged(model, batches.owner, *layers):
        refuse_training_mode(model, *layers)
        passes = pooled_pass(model, layers, over(batches, "spectrum", show_progress), axis, shapes=shapes)
        grouped = _streamed((part.values for part in pooled) for pooled in passes)
    if processes() > 1:
        grouped = [one.all_reduced() for one in grouped]
    make = partial(_spectrum, fit_range=fit_range, stimulus_dim=float(stimulus_dim), replicates=replicates, seed=seed)
    found = iter(grouped)
    results = []
    for module, parts in zip(layers, shapes, strict=True):
        name = layer_name(model, module)
        warn_of_positions(module, name, unit_dim, parts[0])
        own = tuple(make(name, next(found)) for _ in parts)
        results.append(own[0] if len(own) == 1 else own)
    return results if several else results[0]


def _streamed(batches: Any) -> list[GroupedCovariance]:
    """Return one grouped covariance per stream of units; which group a sample is in depends on its position alone."""
    generator, total, groups = np.random.default_rng(0), list[GroupedCovariance](), 1
    for batch in batches:
        values = list(batch)
        if not total:
            groups = groups_for([one.shape[1] for one in values])
        group = (generator.random(len(values[0])) * groups).astype(np.int64)
        new = [GroupedCovariance.of(one, group, groups) for one in values]
        total = [a + b for a, b in zip(total, new, strict=True)] if total else new
    return total


def _spectrum(
    name: str,
    grouped: GroupedCovariance,
    *,
    fit_range: tuple[int, int] | None,
    stimulus_dim: float,
    replicates: int,
    seed: int,
) -> ActivationSpectrum:
    total = grouped.total
    if total.count < 2:
        raise ValueError(f"a covariance needs at least two samples; layer {name!r} got {total.count}")
    values, groups = total.eigenvalues, len(grouped.groups)
    rank = rank_of(values)
    asked = fit_range or default_range(rank)
    refusal = _refusal(asked, rank, len(values), total.count, is_default=fit_range is None)
    empty = values.new_zeros(0)
    if refusal is not None:
        return ActivationSpectrum(
            name, values, total.count, stimulus_dim, None, PowerLaw(nan, nan, nan), empty, groups, refusal
        )
    boot = empty
    if groups > 1 and replicates:
        boot = exponents(grouped.resampled(draw(replicates, groups, seed)), asked)
    return ActivationSpectrum(
        name, values, total.count, stimulus_dim, asked, fit_power_law(values, asked), boot, groups
    )


def _refusal(asked: tuple[int, int], rank: int, units: int, n: int, *, is_default: bool) -> str | None:
    """Say why there is no power law to fit, or None."""
    first, last = asked
    what = f"{units} units and {n:,} samples have {rank} eigenvalues above rounding"
    if last > rank:
        return f"too narrow for ranks {first} to {last}: {what}"
    if is_default and last < DECADES * first:
        return (
            f"too narrow for a fit: {what}, and the default fit needs {int(2 * DECADES * first)} (ranks {first} to "
            "half of them, half a decade at least); pass fit_range to fit all the same"
        )
    return None


def _check(fit_range: tuple[int, int] | None, stimulus_dim: float, replicates: int) -> None:
    if fit_range is not None:
        pair = tuple(fit_range)
        if len(pair) != 2 or not all(isinstance(rank, int) for rank in pair) or not 1 <= pair[0] < pair[1] - 1:
            raise ValueError(
                f"fit_range must be the first and last rank of the fit, from 1, with one between; got {fit_range!r}"
            )
    if not stimulus_dim > 0:
        raise ValueError(f"stimulus_dim must be the dimension of the stimuli, above 0; got {stimulus_dim!r}")
    if not isinstance(replicates, int) or replicates < 0:
        raise ValueError(f"replicates must be an int, at least 0 (0: no interval); got {replicates!r}")
