"""Batches for diagnostics that need no labels: from what the library takes everywhere, or from inputs alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from captum_ablate.inputs.batch import Batch, as_tuple
from captum_ablate.inputs.batches import Batches, UnpackBatch, as_batches
from captum_ablate.inputs.values import ARRAYS


def unlabelled_batches(
    data: Any, *, forward_func: Any, batch_size: int | None = None, unpack_batch: UnpackBatch | None = None
) -> Batches:
    """Return the batches of ``data``, with zeros for labels.

    ``data``: a Tensor of inputs, ``(inputs, target)``, a data set, or an iterable of batches ``(*inputs, labels)``, of
    bare Tensors or of ``(inputs,)``. Labels may be of any kind: they are ignored.
    """

    def unpack(item: Any) -> Batch:
        return _without_labels(item if unpack_batch is None else unpack_batch(item))

    if isinstance(data, (Tensor, *ARRAYS)):
        data = _zeros(Batch((data,), None))
    elif isinstance(data, Batch) or (isinstance(data, tuple) and len(data) == 2 and _is_arrays(data[0])):
        data = _without_labels(data if isinstance(data, Batch) else Batch(as_tuple(data[0]), data[1]))
    return as_batches(data, forward_func=forward_func, batch_size=batch_size, unpack_batch=unpack)


def _is_arrays(inputs: Any) -> bool:
    return all(isinstance(part, (Tensor, *ARRAYS)) for part in as_tuple(inputs))


def _without_labels(item: Any) -> Batch:
    if isinstance(item, Batch):
        return _zeros(item._replace(inputs=as_tuple(item.inputs)))
    if isinstance(item, Tensor):
        return _zeros(Batch((item,), None))
    if isinstance(item, (tuple, list)) and item:
        return _zeros(Batch(tuple(item[:-1]) if len(item) > 1 else tuple(item), item[-1]))
    raise TypeError(
        f"each batch must be a Tensor of inputs, (inputs,) or (*inputs, labels); got {type(item).__name__}. "
        "Pass unpack_batch=f, where f(batch) returns one of these or Batch(inputs, target, additional_forward_args)."
    )


def _zeros(batch: Batch) -> Batch:
    """Return the batch with zeros for labels, as many as its first input, or else its labels, have rows."""
    own = [part for k, part in enumerate(batch.inputs) if k not in batch.shared]
    sized = [
        leaf for leaf in (*own, *tree_leaves(own), batch.target) if isinstance(leaf, (Tensor, *ARRAYS)) and leaf.ndim
    ]
    if not sized:
        raise TypeError(
            "a batch needs at least one Tensor of inputs [n, ...]; got "
            f"{', '.join(type(part).__name__ for part in batch.inputs)}"
        )
    return batch._replace(target=torch.zeros(len(sized[0]), dtype=torch.int64))
