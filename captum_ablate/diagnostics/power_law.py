"""The power law of a spectrum, eigenvalue i ~ i^-alpha, the ranks that its fit needs, and its dimensionality."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from captum_ablate.inputs.rounding import rounding
from captum_ablate.inputs.values import as_real, tensor_of

FIRST_RANK, LAST_RANK = 10, 500
"""The default range of a fit: the first ranks hold the few strong directions of a layer, the last its noise floor."""

DECADES = 3.0
"""Least ratio of the last to the first rank of a default range: half a decade, less says nothing of a power law."""


class PowerLaw(NamedTuple):
    """A line through log eigenvalue against log rank: ``alpha`` is minus its slope, ``level`` its value at rank 1."""

    alpha: float
    level: float
    r2: float


def fit_power_law(eigenvalues: Tensor, fit_range: tuple[int, int]) -> PowerLaw:
    """Fit log eigenvalue = level - alpha log rank by least squares over the ranks of ``fit_range``, both included.

    ``eigenvalues [units]`` come largest first; ranks count from 1. alpha > 0 means decay.
    """
    x, y = _logarithms(eigenvalues, fit_range)
    alpha = exponents(eigenvalues, fit_range)
    level = y.mean() + alpha * x.mean()
    rest, total = (y - level + alpha * x).square().sum(), (y - y.mean()).square().sum()
    return PowerLaw(float(alpha), float(level), float(1 - rest / total) if float(total) > 0 else float("nan"))


def exponents(eigenvalues: Tensor, fit_range: tuple[int, int]) -> Tensor:
    """Return alpha of each spectrum of ``eigenvalues [..., units]``, ``[...]``."""
    x, y = _logarithms(eigenvalues, fit_range)
    centred = x - x.mean()
    return -(y * centred).sum(dim=-1) / centred.square().sum()


def rank_of(eigenvalues: Tensor, noise: float = 0.0) -> int:
    """Count the eigenvalues above rounding: larger than the largest times units times machine epsilon, and ``noise``.

    ``noise`` is a variance, that of the rounding of the activations themselves.
    """
    floor = float(eigenvalues.max()) * len(eigenvalues) * torch.finfo(torch.float64).eps
    return int((eigenvalues > max(floor, noise)).sum())


def default_range(rank: int) -> tuple[int, int]:
    """Return the ranks 10 .. min(rank / 2, 500), our choice after Stringer et al. (2019)."""
    return FIRST_RANK, min(rank // 2, LAST_RANK)


def too_few_ranks(fit_range: tuple[int, int], rank: int, units: int, n: int, *, is_default: bool) -> str | None:
    """Say why a layer of this ``rank`` has no such ranks to fit, and what to do; None where it has them."""
    first, last = fit_range
    ranks = f"{units} units and {n:,} samples have {rank} eigenvalues above rounding"
    if is_default and last < DECADES * first:
        return (
            f"too narrow for a fit: {ranks}, and the default fit needs {int(2 * DECADES * first)} (ranks {first} to "
            "half of them, half a decade at least); pass fit_range to fit all the same"
        )
    if last > rank:
        return (
            f"too narrow for ranks {first} to {last}: {ranks}; {_shorter(first, rank)}take a wider layer, or more "
            "samples if they are fewer than the units"
        )
    return None


def too_few_samples(fit_range: tuple[int, int], resampled_rank: int, n: int) -> str | None:
    """Say why ``n`` samples are too few to resample, and what to do; None where they suffice.

    A bootstrap replicate holds each sample several times or not at all. Where it lacks the last ranks of the fit, their
    eigenvalues are rounding. Then neither its exponent nor the bias estimated from it means anything.
    """
    first, last = fit_range
    if resampled_rank >= last:
        return None
    return (
        f"too few samples for ranks {first} to {last}: of {n:,} samples, a bootstrap replicate has as few as "
        f"{resampled_rank} eigenvalues above rounding; {_shorter(first, resampled_rank)}use more samples, or pass "
        "replicates=0 for the plain fit, which few samples steepen"
    )


def participation_ratio(eigenvalues: Tensor) -> float:
    """Return (sum of eigenvalues)^2 / sum of their squares: the number of dimensions that share the variance.

    It lies between 1 and the number of units; NaN if all eigenvalues are 0.

    Args:
        eigenvalues: ``[units]``, the eigenvalues of a covariance, in any order and unit of variance. What rounding
            puts below 0 counts as 0.

    Raises:
        ValueError: if ``eigenvalues`` are not one spectrum ``[units]``, or one of them is negative.

    Example:
        >>> import torch
        >>> from captum_ablate import participation_ratio
        >>> participation_ratio(torch.tensor([2.0, 2.0, 2.0, 0.0]))
        3.0
    """
    shares = _shares(eigenvalues)
    return float(shares.sum().square() / shares.square().sum())


def effective_rank(eigenvalues: Tensor) -> float:
    """Return exp of the entropy of the shares of variance (Roy and Vetterli 2007), 1 .. units; NaN if all are 0."""
    shares = _shares(eigenvalues)
    return float(torch.special.entr(shares / shares.sum()).sum().exp())


def _logarithms(eigenvalues: Tensor, fit_range: tuple[int, int]) -> tuple[Tensor, Tensor]:
    low, high = fit_range
    if not 1 <= low < high <= eigenvalues.shape[-1]:
        raise ValueError(
            f"fit_range must be two ranks, 1 <= first < last <= {eigenvalues.shape[-1]} (the number of eigenvalues); "
            f"got {fit_range!r}"
        )
    chosen = eigenvalues[..., low - 1 : high].to(torch.float64)
    tiny = torch.finfo(torch.float64).tiny
    return torch.arange(low, high + 1, dtype=torch.float64).log(), chosen.clamp(min=tiny).log()


def _shorter(first: int, rank: int) -> str:
    """Offer a range that ends at ``rank``, if it has a rank between its ends."""
    return f"pass a fit_range that ends at {rank} or before, " if rank > first + 1 else ""


def _shares(eigenvalues: Tensor) -> Tensor:
    """Return float64 ``eigenvalues [units]`` over the largest, rounding below 0 as 0; NaN if all are 0."""
    values = as_real(eigenvalues, "eigenvalues")
    if values.ndim != 1 or not len(values):
        raise ValueError(f"eigenvalues must be one spectrum, [units]; got shape {tuple(values.shape)}")
    if not bool(values.isfinite().all()):
        raise ValueError("eigenvalues must be finite; got NaN or infinite values")
    shares = values / values.abs().max()  # so that no square is out of range
    if float(shares.min()) < -rounding(tensor_of(eigenvalues).dtype) * len(shares):
        raise ValueError(f"the eigenvalues of a covariance are at least 0; got {float(values.min()):.3g}")
    return shares.clamp(min=0)
