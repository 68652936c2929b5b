"""The pooled activations of a layer as a table, from a model and data or from the user, checked once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_ablate.inputs.batches import UnpackBatch, as_batches, as_target, check_classes
from captum_ablate.inputs.model import ForwardFunc, Layer, as_model, borrowed, find_layer
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.activations import pooled_pass
from captum_ablate.statistics.class_statistics import ActivationTable


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
    """Return ``values [n, units]``, the activations of a layer averaged over positions, and ``target [n]``.

    ``data`` is ``(inputs, target)`` or an iterable of batches ``(*inputs, labels)``. Of a tuple output, the first
    tensor counts.
    """
    model = as_model(forward_func)
    module, axis = find_layer(model, layer), UnitAxis.of(unit_dim, layer_mask)
    batches = as_batches(data, forward_func=model, batch_size=batch_size, unpack_batch=unpack_batch)
    with borrowed(model, module, batches.owner):
        parts = [pooled[0] for pooled in pooled_pass(model, [module], batches, axis)]
    return ActivationTable(torch.cat([part.values for part in parts]), torch.cat([part.target for part in parts]))


def checked_table(activations: Tensor, target: Any) -> ActivationTable:
    """Return ``activations [n, units]`` as float64 and ``target [n]`` as int64; raise where they do not fit."""
    values, labels = torch.as_tensor(activations).detach().cpu().to(torch.float64), as_target(target).cpu()
    if values.ndim != 2 or len(values) != len(labels):
        raise ValueError(
            f"activations must be [n, units], one row for each of the {len(labels)} labels; got "
            f"{tuple(values.shape)}; activation_table(model, layer, data) averages over positions"
        )
    if not bool(torch.isfinite(values).all()):
        raise ValueError("activations must be finite; got NaN or infinite values")
    check_classes(torch.unique(labels))
    return ActivationTable(values, labels)
