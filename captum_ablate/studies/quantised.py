"""Activations as codes of a few values, under the very quantiser of entropy, information and KL selectivity."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_ablate.statistics.class_statistics import ActivationTable, ClassHistogram, ValueRange
from captum_ablate.statistics.quantiser import Quantiser

Threshold = float | Tensor | str | None


def edges_of(table: ActivationTable, threshold: Threshold, bins: int | None, edges: str) -> Tensor:
    """Return the edges of the public arguments for ``table``, ``[bins - 1]`` or one threshold per unit ``[units, 1]``.

    With neither ``threshold`` nor ``bins`` as ``LayerMutualInformation`` chooses for a layer without positions.
    """
    found = Quantiser.of(threshold, bins, edges).edges_for(ValueRange.of(table.values, 1), table.values)
    units = table.values.shape[1]
    if found.ndim == 2 and len(found) != units:
        raise ValueError(f"threshold must have one value for each of the {units} units; got {len(found)}")
    return found


def histogram_of(table: ActivationTable, edges: Tensor) -> ClassHistogram:
    """Return the counts per class, unit and value."""
    return ClassHistogram.of(table.values, table.target, edges)


def codes_of(table: ActivationTable, edges: Tensor) -> Tensor:
    """Return the value of each unit for each sample, int64 ``[n, units]``: the number of edges below it."""
    if edges.ndim == 1:
        return torch.bucketize(table.values, edges)
    return (table.values > edges[:, 0]).to(torch.int64)
