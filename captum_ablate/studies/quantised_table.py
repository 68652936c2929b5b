"""Quantise a table of activations, so that information can be counted in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_ablate.inputs.targets import as_target, check_classes
from captum_ablate.inputs.values import as_real
from captum_ablate.statistics.histogram import ClassHistogram
from captum_ablate.statistics.quantiser import Quantiser, ValueRange
from captum_ablate.statistics.table import ActivationTable

Threshold = float | Tensor | str | None


@dataclass(frozen=True, eq=False)
class QuantisedTable:
    """A table of activations whose units take few values: ``edges`` between them, ``[bins - 1]`` or ``[units, 1]``."""

    table: ActivationTable
    edges: Tensor

    @classmethod
    def of(cls, activations: Tensor, target: Any, threshold: Threshold, bins: int | None, edges: str) -> QuantisedTable:
        """Quantise as ``LayerMutualInformation`` does for a layer without positions."""
        table = _checked_table(activations, target)
        found = Quantiser.of(threshold, bins, edges).edges_for(ValueRange.of(table.values, 1), table.values)
        units = table.values.shape[1]
        if found.ndim == 2 and len(found) != units:
            raise ValueError(f"threshold must have one value for each of the {units} units; got {len(found)}")
        return cls(table, found)

    @property
    def values(self) -> int:
        """Number of values that a unit may take."""
        return self.edges.shape[-1] + 1

    @property
    def histogram(self) -> ClassHistogram:
        """Counts per class, unit and value."""
        return ClassHistogram.of(self.table.values, self.table.target, self.edges)

    @property
    def codes(self) -> Tensor:
        """Value of each unit for each sample, int64 ``[n, units]``: the number of edges below the activation."""
        if self.edges.ndim == 1:
            return torch.bucketize(self.table.values, self.edges)
        return (self.table.values > self.edges[:, 0]).to(torch.int64)


def _checked_table(activations: Tensor, target: Any) -> ActivationTable:
    """Return ``activations [n, units]`` as float64 and ``target [n]`` as int64; raise where they do not fit."""
    values, labels = as_real(activations, "activations"), as_target(target).cpu()
    if values.ndim != 2 or len(values) != len(labels):
        raise ValueError(
            f"activations must be [n, units], one row for each of the {len(labels)} labels; got "
            f"{tuple(values.shape)}; activation_table(model, layer, data) averages over positions"
        )
    if not bool(torch.isfinite(values).all()):
        raise ValueError("activations must be finite; got NaN or infinite values")
    check_classes(torch.unique(labels))
    return ActivationTable(values, labels)
