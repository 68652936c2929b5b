"""From the streamed covariance of a layer to its spectrum: power law, bootstrap, and why neither can be had."""

from __future__ import annotations

from math import nan

from captum_ablate.diagnostics.power_law import (
    DECADES,
    PowerLaw,
    default_range,
    exponents,
    fit_power_law,
    rank_of,
)
from captum_ablate.diagnostics.resampling import GroupedCovariance, draw
from captum_ablate.diagnostics.spectrum_result import ActivationSpectrum


def fitted(
    name: str,
    grouped: GroupedCovariance,
    *,
    fit_range: tuple[int, int] | None,
    stimulus_dim: float,
    replicates: int,
    seed: int,
) -> ActivationSpectrum:
    """Return the spectrum of the layer ``name``; it says why where it has no power law."""
    total = grouped.total
    if total.count < 2:
        raise ValueError(f"a covariance needs at least two samples; layer {name!r} got {total.count}")
    values, groups = total.eigenvalues, len(grouped.groups)
    rank = rank_of(values)
    asked = fit_range or default_range(rank)
    refusal = _too_narrow(asked, rank, len(values), total.count, is_default=fit_range is None)
    nothing = values.new_zeros(0)
    boot = nothing
    if refusal is None and groups > 1 and replicates:
        resampled = grouped.resampled(draw(replicates, groups, seed))  # [replicates, units]
        refusal = _too_few(asked, min(rank_of(one) for one in resampled), total.count)
        boot = exponents(resampled, asked) if refusal is None else nothing
    if refusal is not None:
        unknown = PowerLaw(nan, nan, nan)
        return ActivationSpectrum(name, values, total.count, stimulus_dim, None, unknown, nothing, groups, refusal)
    return ActivationSpectrum(
        name, values, total.count, stimulus_dim, asked, fit_power_law(values, asked), boot, groups
    )


def _too_narrow(asked: tuple[int, int], rank: int, units: int, n: int, *, is_default: bool) -> str | None:
    """Say why the layer has no ranks to fit, and how to go on; or None."""
    first, last = asked
    what = f"{units} units and {n:,} samples have {rank} eigenvalues above rounding"
    if is_default and last < DECADES * first:
        return (
            f"too narrow for a fit: {what}, and the default fit needs {int(2 * DECADES * first)} (ranks {first} to "
            "half of them, half a decade at least); pass fit_range to fit all the same"
        )
    if last > rank:
        return (
            f"too narrow for ranks {first} to {last}: {what}; {_shorter(first, rank)}take a wider layer, or more "
            "samples where they are fewer than the units"
        )
    return None


def _too_few(asked: tuple[int, int], resampled_rank: int, n: int) -> str | None:
    """Say why the samples are too few to resample, and how to go on; or None.

    A replicate holds each sample several times or not at all. Where it lacks the last ranks of the fit, their
    eigenvalues are rounding, and neither its exponent nor the bias estimated from it means anything.
    """
    first, last = asked
    if resampled_rank >= last:
        return None
    return (
        f"too few samples for ranks {first} to {last}: of {n:,} samples, a bootstrap replicate has as few as "
        f"{resampled_rank} eigenvalues above rounding; {_shorter(first, resampled_rank)}bring more samples, or pass "
        "replicates=0 for the plain fit, which few samples steepen"
    )


def _shorter(first: int, rank: int) -> str:
    """Offer a range that ends at ``rank``, if it has a rank between its ends."""
    return f"pass a fit_range that ends at {rank} or before, " if rank > first + 1 else ""
