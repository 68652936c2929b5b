"""Call a model on a batch; a model that writes into its inputs leaves the user's data as they were."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from captum_ablate.inputs.batch import Batch, are_tensors, map_tensors


def call(forward_func: Callable[..., Any], batch: Batch) -> Any:
    """Return the model's outputs for a copy of ``batch``, which the model may write into."""
    inputs, extra = map_tensors(_copy, batch)
    return _outputs(forward_func, (*inputs, *extra))


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
            outputs = _outputs(self._forward_func, (*inputs, *extra))
            originals = _tensors(batch.inputs, batch.additional_forward_args)
            pairs = zip(_tensors(inputs, extra), originals, strict=True)
            self._writes = any(not _is_same(copy, original) for copy, original in pairs)
            return outputs
        if self._writes:
            return call(self._forward_func, batch)
        inputs, extra = map_tensors(Tensor.detach, batch)
        tensors = _tensors(inputs, extra)
        before = [tensor._version for tensor in tensors]
        outputs = _outputs(self._forward_func, (*inputs, *extra))
        if any(tensor._version != version for tensor, version in zip(tensors, before, strict=True)):
            raise ValueError(
                "the model wrote into its inputs, which it did not do in the first batch, so those of this batch are "
                "changed; let its forward method work on a copy (x = x.clone())"
            )
        return outputs


def _outputs(forward_func: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Return the model's outputs; where it cannot take a batch, the error says what came, and what to do."""
    try:
        return forward_func(*arguments)
    except (TypeError, RuntimeError) as error:
        hint = _hint(error, forward_func, arguments)
        if hint is None:
            raise
        raise type(error)(f"{error}; {hint}") from error


def _hint(error: Exception, forward_func: Callable[..., Any], arguments: tuple[Any, ...]) -> str | None:
    """Return what may be wrong with the batch, or None if the error seems to be the model's own."""
    if type(error) is TypeError and not _takes(forward_func, len(arguments)):
        several = "s" if len(arguments) > 1 else ""
        return (
            f"each batch gives the model {len(arguments)} positional argument{several}: of (*inputs, labels) all but "
            "the last. Where batches hold something else, such as indices, pass unpack_batch=f, where f(batch) returns "
            "Batch(inputs, target); for a model with keyword arguments pass a function around it, such as "
            "lambda x: model(x=x)"
        )
    if type(error) is RuntimeError and re.search(r"dtype|scalar type|[Ii]nput type", str(error)):
        model = getattr(forward_func, "__self__", forward_func)
        weights = {w.dtype for w in model.parameters()} if isinstance(model, nn.Module) else set()
        came = {x.dtype for x in arguments if isinstance(x, Tensor)}
        if weights and came - weights:
            names = [" and ".join(sorted(str(d).removeprefix("torch.") for d in some)) for some in (came, weights)]
            return f"the inputs are {names[0]} and the model's weights {names[1]}: convert one of them"
    return None


def _takes(forward_func: Callable[..., Any], arguments: int) -> bool:
    """Tell whether a function can be called with so many arguments, as far as its signature says."""
    try:
        forward = forward_func.forward if isinstance(forward_func, nn.Module) else forward_func
        inspect.signature(forward).bind(*range(arguments))
    except TypeError:
        return False
    except ValueError:  # a built-in function without a signature
        return True
    return True


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone()


def _is_same(copy: Tensor, original: Tensor) -> bool:
    """Tell whether two tensors are surely equal; sparse and inference tensors cannot tell later if they change."""
    return not original.is_inference() and original.layout == torch.strided and torch.equal(copy, original)


def _tensors(inputs: tuple[Any, ...], extra: tuple[Any, ...]) -> list[Tensor]:
    if are_tensors(inputs) and are_tensors(extra):
        return [*inputs, *extra]
    return [leaf for leaf in tree_leaves((inputs, extra)) if isinstance(leaf, Tensor)]
