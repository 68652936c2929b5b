"""The activations of a layer as a table of samples and units, averaged over positions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_ablate.inputs.batches import UnpackBatch, as_batches
from captum_ablate.inputs.borrowed import borrowed
from captum_ablate.inputs.model import ForwardFunc, Layer, as_model, find_layer
from captum_ablate.inputs.rounding import rounding
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.pooled import pooled_activations
from captum_ablate.statistics.table import ActivationTable


def activation_table(
    forward_func: ForwardFunc,
    layer: Layer,
    data: Any,
    *,
    unit_dim: int | None = 1,
    layer_mask: Tensor | None = None,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
) -> ActivationTable:
    """Return the activations of a layer averaged over positions, ``values [n, units]``, and ``target [n]``.

    Args:
        forward_func: an ``nn.Module``, or any function that runs ``layer`` once.
        layer: the module, or its dotted name; of a tuple output, the first tensor counts.
        data: ``(inputs, target)``, or an iterable of batches ``(*inputs, labels)``.
        unit_dim: axis of the units; None for every value a unit.
        layer_mask: groups of values that are one unit, as in the attributions.
        batch_size: samples at a time where data are tensors.
        unpack_batch: turns a batch of another form into ``Batch(inputs, target)``.

    Raises:
        ValueError: if the model is in training mode, or the layer runs more or less than once.

    Example:
        >>> import torch
        >>> from captum_ablate.studies import activation_table
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 20), torch.nn.ReLU(), torch.nn.Linear(20, 2)).eval()
        >>> table = activation_table(model, "1", (torch.randn(60, 8), torch.arange(60) % 2))
        >>> table.values.shape, table.target.shape
        (torch.Size([60, 20]), torch.Size([60]))
    """
    model = as_model(forward_func)
    module, axis = find_layer(model, layer), UnitAxis.of(unit_dim, layer_mask)
    batches = as_batches(data, forward_func=model, batch_size=batch_size, unpack_batch=unpack_batch)
    with borrowed(model, module, batches.owner):
        parts = [first for ((first, *_),) in pooled_activations(model, [module], batches, axis)]
    return ActivationTable(
        torch.cat([part.values for part in parts]),
        torch.cat([part.target for part in parts]),
        rounding(parts[0].dtype),
    )
