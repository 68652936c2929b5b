"""Batches for diagnostics that need no labels: from what the library takes everywhere, or from inputs alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_ablate.inputs.batches import Batch, Batches, UnpackBatch, as_batches, as_tuple


def unlabelled_batches(
    data: Any, *, forward_func: Any, batch_size: int | None = None, unpack_batch: UnpackBatch | None = None
) -> Batches:
    """Return the batches of ``data``, with zeros for labels.

    ``data``: a Tensor of inputs, ``(inputs, target)``, a data set, or an iterable of batches ``(*inputs, labels)``, of
    bare Tensors or of ``(inputs,)``. Labels may be of any kind: they are ignored.
    """

    def unpack(item: Any) -> Batch:
        return _without_labels(item if unpack_batch is None else unpack_batch(item))

    if isinstance(data, Tensor):
        data = _zeros((data,), ())
    elif isinstance(data, Batch) or (isinstance(data, tuple) and len(data) == 2 and _is_tensors(data[0])):
        data = _without_labels(data if isinstance(data, Batch) else Batch(as_tuple(data[0]), data[1]))
    return as_batches(data, forward_func=forward_func, batch_size=batch_size, unpack_batch=unpack)


def _is_tensors(inputs: Any) -> bool:
    return all(isinstance(part, Tensor) for part in as_tuple(inputs))


def _without_labels(item: Any) -> Batch:
    if isinstance(item, Batch):
        return _zeros(as_tuple(item.inputs), item.additional_forward_args)
    if isinstance(item, Tensor):
        return _zeros((item,), ())
    if isinstance(item, (tuple, list)) and item:
        return _zeros(tuple(item[:-1]) if len(item) > 1 else tuple(item), ())
    raise TypeError(
        f"each batch must be a Tensor of inputs, (inputs,) or (*inputs, labels); got {type(item).__name__}. "
        "Pass unpack_batch=f, where f(batch) returns one of these or Batch(inputs, target, additional_forward_args)."
    )


def _zeros(inputs: tuple[Any, ...], extra: Any) -> Batch:
    first = next((part for part in inputs if isinstance(part, Tensor) and part.ndim), None)
    if first is None:
        raise TypeError(
            f"a batch needs at least one Tensor of inputs [n, ...]; got {', '.join(type(p).__name__ for p in inputs)}"
        )
    return Batch(inputs, torch.zeros(len(first), dtype=torch.int64), () if extra is None else extra)
