"""Check one batch: arrays become tensors on the model's device, and every input has one row per target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from captum_ablate.inputs.batch import Batch, are_tensors, as_tuple, is_texts, map_tensors
from captum_ablate.inputs.eager import ordinary
from captum_ablate.inputs.targets import any_target, as_target
from captum_ablate.inputs.values import ARRAYS, int_or_none, is_text, tensor_of


def float_type_of(forward_func: Any) -> torch.dtype:
    """Return the floating type of the model's parameters, or PyTorch's default where there is none to ask."""
    model = getattr(forward_func, "__self__", forward_func)
    own = model.parameters() if isinstance(model, nn.Module) else ()
    return next((p.dtype for p in own if p.is_floating_point()), torch.get_default_dtype())


@dataclass(frozen=True)
class Checks:
    """Form of a batch: tensors on ``device``, floating arrays as ``float_type``, targets that are ``classes``."""

    device: torch.device | None
    float_type: torch.dtype
    classes: bool = True
    of_stream: bool = False
    """True if batches come one by one, so that single samples may have been taken for batches."""

    def checked(self, item: Any, number: int) -> Batch:
        """Return one batch checked; ``number`` counts batches, for messages.

        Raises:
            TypeError: if it is no batch, or arrays or targets are no numbers.
            ValueError: if targets are missing or do not fit, or an input has another number of rows than the target.
        """
        batch = _as_batch(item, number)
        where = f" of batch {number}"
        if self.of_stream and int_or_none(batch.target) is not None and np.ndim(batch.target) == 0:
            where += " (or these are single samples: join them to batches with DataLoader(data, batch_size=...))"
        target = (as_target if self.classes else any_target)(batch.target, where=where)
        inputs, extra = self._tensors(batch, number)
        batch = Batch(inputs, target, extra, _names(batch, number), _mask(batch.position_mask, target, number))
        _check_rows(batch, number)
        return self._moved(batch)

    def _tensors(self, batch: Batch, number: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        if are_tensors(batch.arguments):
            return batch.inputs, batch.additional_forward_args

        def tensors(value: Any) -> Any:
            if not isinstance(value, ARRAYS) or (isinstance(value, np.ndarray) and is_text(value)):
                return value
            if value.ndim == 1 and is_text(value):
                return list(value)
            found = tensor_of(value, f"the inputs of batch {number}")
            return found.to(self.float_type) if found.is_floating_point() else found

        return tree_map(tensors, (batch.inputs, batch.additional_forward_args))

    def _moved(self, batch: Batch) -> Batch:
        move = self.device

        def moved(part: Tensor) -> Tensor:
            return ordinary(part if move is None or part.device == move else part.to(move))

        inputs, extra = map_tensors(moved, batch)
        mask = batch.position_mask
        target = moved(batch.target).clone()  # kept after the batch, whose memory a loader may fill again
        return Batch(inputs, target, extra, batch.shared, None if mask is None else moved(mask))


def _as_batch(item: Any, number: int) -> Batch:
    if isinstance(item, (tuple, list)) and not isinstance(item, Batch) and len(item) in (2, 3):
        item = Batch(*item)
    if not isinstance(item, Batch):
        raise TypeError(
            f"unpack_batch must return Batch(inputs, target, additional_forward_args=()); got {type(item).__name__}"
        )
    extra, inputs = item.additional_forward_args, item.inputs
    several = isinstance(inputs, list) and not is_texts(inputs)
    inputs = tuple(inputs) if several else as_tuple(inputs)
    if not inputs:
        raise ValueError(f"batch {number} has no inputs: each batch must be (*inputs, labels)")
    return item._replace(inputs=inputs, additional_forward_args=() if extra is None else as_tuple(extra))


def _names(batch: Batch, number: int) -> tuple[int | str, ...]:
    """Return the names of shared arguments, checked, without doubles."""
    given = (batch.shared,) if isinstance(batch.shared, (str, int, np.integer)) else tuple(batch.shared or ())
    names = [name if isinstance(name, str) else int_or_none(name) for name in given]
    count = len(batch.arguments)
    keys = sorted({str(key) for value in batch.arguments if isinstance(value, dict) for key in value})
    for name, own in zip(names, given, strict=True):
        if not (name in keys if isinstance(name, str) else name is not None and 0 <= name < count):
            raise ValueError(
                f"shared names the argument {own!r}, which batch {number} lacks: it has the arguments 0 to "
                f"{count - 1}, inputs first, then additional ones"
                + (f", and the keys {', '.join(keys)}" if keys else "")
            )
    return tuple(dict.fromkeys(name for name in names if name is not None))


def _mask(mask: Any, target: Tensor, number: int) -> Tensor | None:
    if mask is None:
        return None
    found = tensor_of(mask, "position_mask")
    is_bool = found.dtype == torch.bool or (not found.is_floating_point() and bool(((found == 0) | (found == 1)).all()))
    if not is_bool or found.ndim < 2 or len(found) != len(target):
        raise ValueError(
            f"position_mask must be bool [n, positions], False for padding, with n = {len(target)} in batch {number}; "
            f"got {found.dtype} {tuple(found.shape)}"
        )
    if not bool(found.flatten(1).any(1).all()):
        empty = int((~found.flatten(1).any(1)).nonzero()[0])
        raise ValueError(
            f"position_mask leaves sample {empty} of batch {number} without any position; leave the sample out"
        )
    return found.to(torch.bool)


def _check_rows(batch: Batch, number: int) -> None:
    n = len(batch.target)
    for k, part in enumerate(batch.inputs):
        if k in batch.shared or not (is_texts(part) or (isinstance(part, Tensor) and not part.is_nested)):
            continue
        if isinstance(part, Tensor):
            what, rows = f"inputs of shape {tuple(part.shape)}", part.shape[0] if part.ndim else None
        else:
            what, rows = f"{len(part)} strings", len(part)
        if rows != n:
            hint = ""
            if len(batch.inputs) > 1:
                hint = f"; if all samples share input {k}, name it: Batch(inputs, target, shared=({k},))"
            raise ValueError(
                f"batch {number} has {n} labels for {what}; the first axis of every input must be the samples, with "
                f"one label each{hint}"
            )
