"""Call a model on a batch; a model that writes into its inputs leaves the user's data as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from captum_ablate.inputs.batch import Batch, are_tensors, map_tensors


def call(forward_func: Callable[..., Any], batch: Batch) -> Any:
    """Return the model's outputs for a copy of ``batch``, which the model may write into."""
    inputs, extra = map_tensors(_copy, batch)
    return forward_func(*inputs, *extra)


class Caller:
    """Call a model on batch after batch; copy them only if it wrote into the first.

    Raises:
        ValueError: if the model writes into the inputs of a later batch for the first time.
    """

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        self._forward_func = forward_func
        self._writes: bool | None = None

    def __call__(self, batch: Batch) -> Any:
        """Return the model's outputs for ``batch``."""
        if self._writes is None:
            inputs, extra = map_tensors(_copy, batch)
            outputs = self._forward_func(*inputs, *extra)
            originals = _tensors(batch.inputs, batch.additional_forward_args)
            pairs = zip(_tensors(inputs, extra), originals, strict=True)
            self._writes = any(not _is_same(copy, original) for copy, original in pairs)
            return outputs
        if self._writes:
            return call(self._forward_func, batch)
        inputs, extra = map_tensors(Tensor.detach, batch)
        tensors = _tensors(inputs, extra)
        before = [tensor._version for tensor in tensors]
        outputs = self._forward_func(*inputs, *extra)
        if any(tensor._version != version for tensor, version in zip(tensors, before, strict=True)):
            raise ValueError(
                "the model wrote into its inputs, which it did not do in the first batch, so those of this batch are "
                "changed; let its forward method work on a copy (x = x.clone())"
            )
        return outputs


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _is_same(copy: Tensor, original: Tensor) -> bool:
    """Tell whether two tensors are surely equal; sparse and inference tensors cannot tell later if they change."""
    return not original.is_inference() and original.layout == torch.strided and torch.equal(copy, original)


def _tensors(inputs: tuple[Any, ...], extra: tuple[Any, ...]) -> list[Tensor]:
    if are_tensors(inputs) and are_tensors(extra):
        return [*inputs, *extra]
    return [leaf for leaf in tree_leaves((inputs, extra)) if isinstance(leaf, Tensor)]
