"""Turn tensors, or any iterable of batches, into checked batches on the device of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, Dataset, IterableDataset

from captum_ablate.inputs.eager import ordinary
from captum_ablate.inputs.model import device_of

TENSOR_BATCH = 256
"""Samples in a batch if tensors come without ``batch_size``: enough for speed, little enough for memory."""


class Batch(NamedTuple):
    """Samples with the class of each; the model is called as ``model(*inputs, *additional_forward_args)``.

    Every tensor of ``inputs`` is ``[n, ...]``, ``target`` is ``[n]``. An additional tensor ``[n, ...]`` is cut along
    with the samples; any other additional argument goes along whole.

    Example:
        >>> import torch
        >>> from captum_ablate import Batch
        >>> batch = Batch((torch.zeros(4, 3),), torch.tensor([0, 1, 0, 1]))
        >>> batch.take(slice(2)).inputs[0].shape
        torch.Size([2, 3])
    """

    inputs: tuple[Any, ...]
    target: Any
    additional_forward_args: tuple[Any, ...] = ()

    def take(self, samples: slice | Tensor) -> Batch:
        """Return some of the samples; whatever has no entry per sample goes along whole."""
        n = len(self.target)

        def cut(value: Any) -> Any:
            per_sample = isinstance(value, Tensor) and value.ndim > 0 and len(value) == n
            return value[samples] if per_sample else value

        inputs, extra = tree_map(cut, (self.inputs, self.additional_forward_args))
        return Batch(inputs, cut(self.target), extra)


UnpackBatch = Callable[[Any], Any]


class Batches:
    """A re-iterable of checked batches on one device, with targets int64 ``[n]``."""

    def __init__(self, source: Iterable[Any], unpack_batch: UnpackBatch | None, device: torch.device | None) -> None:
        self._source, self._unpack, self._device = source, unpack_batch or _unpack, device
        self.one_shot = iter(source) is source if isinstance(source, Iterator) else False
        self._started = False

    @property
    def owner(self) -> object:
        """Where the batches come from. Its random generator, if it has one, gets its state back after use."""
        return self._source

    def __len__(self) -> int:
        """Return the number of batches if the source knows it; else ``TypeError``, as usual."""
        return len(self._source)  # type: ignore[arg-type]  # TypeError is what len() promises here

    @property
    def samples(self) -> int | None:
        """Number of samples, or None if the source does not know it."""
        if isinstance(self._source, list):
            return sum(len(b.target) for b in self._source) if all(isinstance(b, Batch) for b in self._source) else None
        if not isinstance(self._source, DataLoader) or self._source.batch_size is None:
            return None
        try:
            n = len(self._source.sampler)  # type: ignore[arg-type]  # TypeError is caught
        except TypeError:
            return None
        return n - n % self._source.batch_size if self._source.drop_last else n

    def refuse_one_shot(self, why: str) -> None:
        """Raise if the data can be iterated only once."""
        if self.one_shot:
            raise ValueError(
                f"the data are a one-shot generator, and more than one pass over them is needed: {why}; "
                "pass a list of batches, a DataLoader, or another object that can be iterated again"
            )

    def __iter__(self) -> Iterator[Batch]:
        if self._started:
            self.refuse_one_shot("this is the second")
        self._started = True
        empty = True
        for number, item in enumerate(self._source):
            batch = self._checked(self._unpack(item), number)
            if len(batch.target):
                empty = False
                yield batch
        if empty:
            raise ValueError("the data set is empty: no batch with at least one sample came")

    def _checked(self, item: Any, number: int) -> Batch:
        batch = _as_batch(item, number)
        target = as_target(batch.target, where=f" of batch {number}")
        for part in batch.inputs:
            if isinstance(part, Tensor) and (part.ndim == 0 or len(part) != len(target)):
                raise ValueError(
                    f"batch {number} has {len(target)} labels for inputs of shape {tuple(part.shape)}; "
                    "the first axis of every input must be the samples, with one label each"
                )
        move = self._device

        def moved(part: Tensor) -> Tensor:
            return ordinary(part if move is None or part.device == move else part.to(move))

        inputs, extra = map_tensors(moved, batch)
        return Batch(inputs, moved(target), extra)


def as_batches(
    data: Any,
    *,
    forward_func: Any = None,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
) -> Batches:
    """Return the batches of ``data``: ``(inputs, target)``, a ``Batch``, a data set, or an iterable of batches."""
    device = device_of(forward_func)
    if isinstance(data, Batches):
        return data
    if isinstance(data, Batch) or (isinstance(data, tuple) and len(data) == 2 and _is_target(data[1])):
        batch = data if isinstance(data, Batch) else Batch(as_tuple(data[0]), data[1])
        return Batches(_split(batch, batch_size), None, device)
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        return Batches(DataLoader(data, batch_size=batch_size or TENSOR_BATCH), unpack_batch, device)
    if isinstance(data, (Tensor, np.ndarray, Mapping, str)) or not isinstance(data, Iterable):
        raise TypeError(
            "data must be a tuple (inputs, target), or an iterable of batches such as a DataLoader; "
            f"got {type(data).__name__}"
        )
    return Batches(data, unpack_batch, device)


def batches_of_call(
    inputs: Any,
    target: Any,
    additional_forward_args: Any,
    *,
    forward_func: Any,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
) -> Batches:
    """Return the batches of ``attribute(inputs, target=...)``: tensors are inputs, anything else is batches."""
    extra = () if additional_forward_args is None else as_tuple(additional_forward_args)
    is_tensors = isinstance(inputs, tuple) and len(inputs) > 0 and all(isinstance(x, Tensor) for x in inputs)
    if (isinstance(inputs, Tensor) or is_tensors) and not isinstance(inputs, Batch):
        if target is None:
            raise ValueError(
                "target is missing: pass target=, the class of each sample ([n] integers), because a score over a "
                "labelled data set compares classes; or pass an iterable of batches (*inputs, labels). A tuple of "
                "tensors is several inputs, not (inputs, target)"
            )
        return as_batches(Batch(as_tuple(inputs), target, extra), forward_func=forward_func, batch_size=batch_size)
    if target is not None or extra:
        raise ValueError(
            f"inputs must be a Tensor or a tuple of Tensors if target is given; got {type(inputs).__name__}. "
            "target and additional_forward_args go with tensor inputs; an iterable of batches brings its own, "
            "as (*inputs, labels) or through unpack_batch"
        )
    return as_batches(inputs, forward_func=forward_func, batch_size=batch_size, unpack_batch=unpack_batch)


def as_target(target: Any, where: str = "") -> Tensor:
    """Return the class of each sample as int64 ``[n]``, from any integer dtype, ``[n, 1]``, a list or numpy."""
    if isinstance(target, Tensor) and target.ndim == 1 and target.dtype == torch.int64:
        return target.detach()
    if target is None:
        raise ValueError(f"the labels{where} are missing: one integer class per sample is needed, [n]")
    if isinstance(target, (int, np.integer)) or (isinstance(target, Tensor) and target.ndim == 0):
        raise ValueError(
            f"target{where} must hold the class of each sample, [n]; got the single number {int(target)}. "
            "One output index for all samples is what Captum's per-sample methods take, not a labelled data set."
        )
    try:
        labels = torch.as_tensor(target).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"target{where} must be integers [n]: a tensor, numpy array or list; got {type(target).__name__}"
        ) from error
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape == (0,):
        return labels.to(torch.int64)
    if labels.is_floating_point() or labels.is_complex() or labels.ndim != 1:
        raise ValueError(
            f"target{where} must hold one integer class per sample, [n]; got {labels.dtype} {tuple(labels.shape)}. "
            "Soft labels, multi-label targets and regression are not supported: choose one class per sample "
            "(such as target.argmax(1) or target.long())."
        )
    return labels.to(torch.int64)


def check_classes(classes: Tensor) -> None:
    """Raise if fewer than two classes are present."""
    if len(classes) < 2:
        raise ValueError(
            f"the data hold one class only (label {int(classes[0])}); a score over labelled data needs two or more"
        )


def map_tensors(f: Callable[[Tensor], Tensor], batch: Batch) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return inputs and additional arguments with ``f`` applied to every tensor in them."""
    inputs, extra = batch.inputs, batch.additional_forward_args
    if are_tensors(inputs) and are_tensors(extra):
        return tuple([f(part) for part in inputs]), tuple([f(part) for part in extra])
    return tree_map(lambda x: f(x) if isinstance(x, Tensor) else x, (inputs, extra))


def are_tensors(values: tuple[Any, ...]) -> bool:
    """Tell whether there is nothing but tensors, so that the costly look into containers can be saved."""
    return all([isinstance(value, Tensor) for value in values])  # noqa: C419  a list is twice as fast here


def as_tuple(value: Any) -> tuple[Any, ...]:
    """Return a tuple as it is, and anything else as a tuple of one."""
    return value if isinstance(value, tuple) else (value,)


def _is_target(value: Any) -> bool:
    """Tell whether the second of two things is labels, not a batch: a batch is a tuple or holds tensors."""
    if isinstance(value, (Tensor, np.ndarray, int)) or value is None:
        return True
    return isinstance(value, (list, tuple)) and all(isinstance(v, (int, float, np.generic)) for v in value)


def _split(batch: Batch, batch_size: int | None) -> list[Batch]:
    """Return the samples ``batch_size`` at a time; additional tensors with one entry per sample go along."""
    if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be a positive int or None; got {batch_size!r}")
    checked = Batches([batch], None, None)._checked(batch, 0)
    size = batch_size or TENSOR_BATCH
    return [checked.take(slice(start, start + size)) for start in range(0, len(checked.target), size)]


def _unpack(item: Any) -> Any:
    if isinstance(item, (Batch, tuple, list)):
        return item if isinstance(item, Batch) else Batch(tuple(item[:-1]), item[-1] if item else None)
    raise TypeError(
        f"each batch must be (*inputs, labels); got {type(item).__name__}. "
        "Pass unpack_batch=f, where f(batch) returns Batch(inputs, target, additional_forward_args)."
    )


def _as_batch(item: Any, number: int) -> Batch:
    if isinstance(item, (tuple, list)) and not isinstance(item, Batch) and len(item) in (2, 3):
        item = Batch(*item)
    if not isinstance(item, Batch):
        raise TypeError(
            f"unpack_batch must return Batch(inputs, target, additional_forward_args=()); got {type(item).__name__}"
        )
    extra = item.additional_forward_args
    inputs = tuple(item.inputs) if isinstance(item.inputs, list) else as_tuple(item.inputs)
    if not inputs:
        raise ValueError(f"batch {number} has no inputs: each batch must be (*inputs, labels)")
    return Batch(inputs, item.target, () if extra is None else as_tuple(extra))
