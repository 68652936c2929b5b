"""References: what replaces an ablated unit's activation: zero, its mean, another sample's value, or the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from captum_ablate.ablation.site import Site
from captum_ablate.inputs.batches import Batches
from captum_ablate.inputs.model import ForwardFunc
from captum_ablate.inputs.units import UnitAxis, check_same_units
from captum_ablate.statistics.activations import activations

DONORS = 256
"""Number of ranking samples that ``resample`` draws from: no donor dominates, and they fit into memory."""

ReferenceOption = str | Tensor | Callable[[Tensor, Tensor], Tensor]


class Reference(Protocol):
    """Return the reference values of a batch."""

    def __call__(self, activation: Tensor, target: Tensor, first: int) -> Tensor:
        """Return values that broadcast against ``activation [n, ...]``; ``first`` is the position of sample 0."""


class ReferenceFit(Protocol):
    """Learn a reference from ranking data."""

    def add(self, activation: Tensor, counted: Tensor | None = None) -> None:
        """Add the layer's output for one batch, ``[n, ...]``, and which positions count, ``[n, positions]``."""

    def finish(self) -> Reference:
        """Return the reference."""


def reference_name(reference: ReferenceOption) -> str:
    """Return the name that results show for ``reference``."""
    if isinstance(reference, str):
        return reference
    return "tensor" if isinstance(reference, Tensor) else getattr(reference, "__name__", type(reference).__name__)


def is_same_reference(one: ReferenceOption, other: ReferenceOption) -> bool:
    """Tell whether two options are one reference: equal names, equal tensors, or the same function."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool((one == other.to(one.device)).all())
    return type(one) is type(other) and not isinstance(one, Tensor) and one == other


def fit_of(reference: ReferenceOption, axis: UnitAxis, seed: int) -> ReferenceFit | None:
    """Return what learns ``reference`` from ranking data, or None if it needs none.

    Raises:
        ValueError: if a string names no reference.
        TypeError: if it is no string, Tensor or function.
    """
    if isinstance(reference, str):
        if reference == "mean":
            return _MeanFit(axis)
        if reference == "resample":
            return _DonorFit(seed)
        if reference != "zero":
            raise ValueError(
                'reference must be "zero", "mean", "resample", a Tensor, or a function (activation, target) -> values; '
                f"got {reference!r}"
            )
    elif not isinstance(reference, Tensor) and not callable(reference):
        raise TypeError(
            'reference must be "zero", "mean", "resample", a Tensor, or a function (activation, target) -> values; '
            f"got {type(reference).__name__}"
        )
    return None


def plain_reference(reference: ReferenceOption) -> Reference:
    """Return a reference that needs no ranking data."""
    if isinstance(reference, Tensor):
        return _Constant(reference.detach())
    return _Function(reference) if callable(reference) else _zero


def learn(
    reference: ReferenceOption, forward_func: ForwardFunc, site: Site, batches: Batches, seed: int = 0
) -> Reference:
    """Return the reference of ``site``; "mean" and "resample" learn from ``batches`` in a pass of their own."""
    fit = fit_of(reference, site.axis, seed)
    if fit is None:
        return plain_reference(reference)
    for batch, (parts,) in activations(
        forward_func, [site.layer], batches, torch.clone, at_input=site.at_input, element=site.element
    ):
        fit.add(parts[0], batch.position_mask)
    return fit.finish()


def _is_whole(activation: Tensor) -> bool:
    return not (activation.is_floating_point() or activation.is_complex())


def _in_type_of(activation: Tensor, value: Tensor) -> Tensor:
    """Return a user's ``value`` in the type of ``activation``; raise if that loses its imaginary part or fractions."""
    if value.is_complex() and not activation.is_complex():
        raise ValueError(
            f"the reference is complex ({value.dtype}) and the layer's activations are not ({activation.dtype}); pass "
            "its .real, or .abs()"
        )
    found = value.to(activation)
    if _is_whole(activation) and not _is_whole(value) and not torch.equal(found.to(value), value.to(found.device)):
        raise ValueError(
            f"the reference has fractions ({value.dtype}) and the layer's activations are {activation.dtype}; pass "
            f"reference.round().to({activation.dtype}), or name a layer with floating activations"
        )
    return found


def _check_finite(reference: str, values: Tensor) -> None:
    wide = values.float() if values.dtype.itemsize == 1 and values.is_floating_point() else values
    if not bool(torch.isfinite(wide).all()):
        raise ValueError(
            f'reference="{reference}" cannot be learnt: the layer has NaN or infinite activations in the data that it '
            "is learnt from; check the inputs and the weights of the model"
        )


def _zero(activation: Tensor, target: Tensor, first: int) -> Tensor:
    return activation.new_zeros(())


@dataclass(frozen=True)
class _Constant:
    value: Tensor

    def __call__(self, activation: Tensor, target: Tensor, first: int) -> Tensor:
        one = activation.shape[1:]
        value = self.value
        if value.ndim == activation.ndim and value.shape[0] == 1:
            value = value[0]
        try:
            fits = torch.broadcast_shapes(value.shape, one) == one
        except RuntimeError:
            fits = False
        if not fits:
            hint = ""
            if value.ndim == 1 and len(one) > 1 and len(value) in one:
                hint = f"; for one value per unit reshape it, such as reference.reshape({[-1] + [1] * (len(one) - 1)})"
            raise ValueError(
                f"reference must broadcast to one sample's output {tuple(one)} of the layer; "
                f"got shape {tuple(self.value.shape)}{hint}"
            )
        return _in_type_of(activation, value)


@dataclass(frozen=True)
class _Function:
    function: Callable[[Tensor, Tensor], Tensor]
    is_live: ClassVar[bool] = True
    """It reads the activation, so after an ablation it must see the ablated one."""

    def __call__(self, activation: Tensor, target: Tensor, first: int) -> Tensor:
        value = self.function(activation.clone(), target.clone())
        if not isinstance(value, Tensor) or value.shape != activation.shape:
            got: Any = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"the reference function must return the shape of its activation, {tuple(activation.shape)}; got {got}"
            )
        return _in_type_of(activation, value.detach())


class _MeanFit:
    def __init__(self, axis: UnitAxis) -> None:
        self.axis, self.sums, self.count = axis, torch.zeros(()), 0

    def add(self, activation: Tensor, counted: Tensor | None = None) -> None:
        sums = self.axis.total(activation, counted).sum(0).cpu()
        if self.sums.ndim:
            check_same_units(len(self.sums), len(sums))
        self.sums = self.sums + sums
        self.count += int(self.axis.counts(activation, counted).sum())

    def finish(self) -> Reference:
        per_group = 1 if self.axis.groups is None else torch.bincount(torch.tensor(self.axis.groups))
        _check_finite("mean", self.sums)
        return _Mean(self.axis, self.sums / self.count / per_group)


@dataclass(frozen=True)
class _Mean:
    axis: UnitAxis
    means: Tensor

    def __call__(self, activation: Tensor, target: Tensor, first: int) -> Tensor:
        values = self.axis.spread(self.means[None], activation.shape)
        return (values.round() if _is_whole(activation) else values).to(activation)


class _DonorFit:
    """A uniform sample of ``DONORS`` ranking samples: those with the smallest random keys, drawn by position."""

    def __init__(self, seed: int) -> None:
        self.seed, self.stream = seed, np.random.default_rng([seed, 1])
        self.donors: list[tuple[float, Tensor]] = []

    def add(self, activation: Tensor, counted: Tensor | None = None) -> None:
        keys = self.stream.random(len(activation))
        if self.donors and self.donors[0][1].shape != activation.shape[1:]:
            raise ValueError(
                'reference="resample" needs outputs of one shape; the layer returned '
                f"{tuple(self.donors[0][1].shape)} and {tuple(activation.shape[1:])}"
            )
        best = np.argsort(keys)[:DONORS]
        drawn = [(float(keys[i]), activation[i].detach().clone()) for i in best]
        self.donors = sorted([*self.donors, *drawn], key=lambda donor: donor[0])[:DONORS]

    def finish(self) -> Reference:
        donors = torch.stack([value for _, value in self.donors])
        _check_finite("resample", donors)
        return _Donors(donors, self.seed)


@dataclass(frozen=True)
class _Donors:
    """One donor for each evaluated sample, chosen by seed and position alone, not by batch or method."""

    values: Tensor
    seed: int

    def __call__(self, activation: Tensor, target: Tensor, first: int) -> Tensor:
        stream = np.random.default_rng([self.seed, 2])
        stream.bit_generator.advance(first)  # type: ignore[attr-defined]  # PCG64, one number per sample
        chosen = (stream.random(len(activation)) * len(self.values)).astype(np.int64)
        donors = self.values[torch.from_numpy(chosen).to(self.values.device)]
        if donors.shape != activation.shape:
            raise ValueError(
                f'reference="resample" has donors of shape {tuple(donors.shape[1:])} for activations of shape '
                f"{tuple(activation.shape[1:])}"
            )
        return donors.to(activation)
