"""Which units ever differ from their reference: one that never does cannot matter, whatever its score."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from captum_ablate.ablation.reference import ReferenceOption, plain_reference
from captum_ablate.ablation.site import Site
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.model import ForwardFunc
from captum_ablate.statistics.activations import activations


class LiveUnits:
    """The units of a site that differ from ``reference`` somewhere in the activations that were added.

    "zero": a value other than 0 at some sample and position. "mean": two different values of the unit (of its group).
    "resample": two different values at the same position. A Tensor or a function: a value other than it.
    """

    def __init__(self, reference: ReferenceOption, site: Site) -> None:
        self._reference, self._site = reference, site
        self._found: Tensor | None = None
        self._first: Tensor | None = None
        self._seen = 0

    @property
    def needs_target(self) -> bool:
        """``add_all`` must feed it: the reference is a function of activation and target."""
        return callable(self._reference)

    def add(self, activation: Tensor, counted: Tensor | None = None, target: Tensor | None = None) -> None:
        """Look at the activations ``[n, ...]`` of a batch; ``counted`` is its position mask, if it has one."""
        if self._found is not None and bool(self._found.all()):
            return
        axis = self._site.axis
        differs = activation != self._expected(activation, counted, target)
        found = (axis.total(differs, counted) > 0).any(dim=0).cpu()
        self._found = found if self._found is None else self._found | found

    def add_all(self, forward_func: ForwardFunc, batches: Iterable[Batch]) -> None:
        """Look at the activations of ``batches``, in a pass of its own, until all units are known to be live."""
        site = self._site
        for batch, (parts,) in activations(
            forward_func, [site.layer], batches, torch.clone, at_input=site.at_input, element=site.element
        ):
            self.add(parts[0], batch.position_mask, batch.target)
            if self._found is not None and bool(self._found.all()):
                break

    def mask(self, units: int) -> Tensor:
        """Return which of ``units`` units are live, ``[units]`` bool."""
        return torch.zeros(units, dtype=torch.bool) if self._found is None else self._found

    def _expected(self, activation: Tensor, counted: Tensor | None, target: Tensor | None) -> Tensor:
        """Return the reference of a batch, or the first value seen, which broadcasts against ``activation``."""
        if isinstance(self._reference, str) and self._reference == "resample":
            if self._first is None:
                self._first = activation[:1].detach().clone()
            if self._first.shape[1:] != activation.shape[1:]:
                return torch.full_like(activation, torch.nan)  # lengths differ: the reference itself refuses them
            return self._first
        if isinstance(self._reference, str) and self._reference == "mean":
            if self._first is None:
                self._first = self._first_value(activation, counted)
            return self._site.axis.spread(self._first[None], activation.shape)
        self._seen, first = self._seen + len(activation), self._seen
        labels = torch.zeros(len(activation), dtype=torch.int64) if target is None else target
        return plain_reference(self._reference)(activation, labels, first)

    def _first_value(self, activation: Tensor, counted: Tensor | None) -> Tensor:
        """Return each unit's value at the first sample and position that counts, ``[units]``."""
        axis, sample, position = self._site.axis, 0, 0
        if counted is not None and axis.positions(activation.shape) > 1:
            sample, position = counted.flatten(1).nonzero()[0].tolist()
        one = activation[sample].detach()
        if axis.unit_dim is None:
            values = one.flatten()
        else:
            by_unit = one.movedim(axis.unit_dim - 1 if axis.unit_dim > 0 else axis.unit_dim, 0)
            values = by_unit.reshape(len(by_unit), -1)[:, position]
        if axis.groups is None:
            return values.clone()
        starts = [axis.groups.index(group) for group in range(max(axis.groups) + 1)]
        return values[starts].clone()
