"""Make batches from other forms of data: the samples of one batch some at a time, and an iterable data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from captum_ablate.inputs.batch import Batch, Name
from captum_ablate.inputs.values import int_or_none


class Slices:
    """The samples of one batch, ``size`` at a time; the whole batch if its samples cannot be cut apart."""

    def __init__(self, batch: Batch, size: int) -> None:
        self._batch, self._size = batch, size
        self.samples = len(batch.target)
        if self.samples > size and batch.why_whole() is not None:
            self._size = self.samples

    def __len__(self) -> int:
        return -(-self.samples // self._size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self.samples, self._size):
            yield self._batch.take(slice(start, start + self._size))

    def sharing(self, names: tuple[Name, ...]) -> Slices:
        """Return the pieces with these arguments never cut."""
        return Slices(self._batch._replace(shared=(*self._batch.shared, *names)), self._size)


class Streamed:
    """An iterable data set: its items one by one if they are batches, else joined to batches of ``size`` samples."""

    def __init__(self, dataset: IterableDataset[Any], size: int) -> None:
        self._dataset, self._size = dataset, size
        self.one_shot = isinstance(dataset, Iterator)

    def __iter__(self) -> Iterator[Any]:
        items = iter(self._dataset)
        first = next(items, None)
        if first is None:
            return iter(())
        every = chain([first], items)
        return iter(DataLoader(_Stream(every), batch_size=self._size)) if _is_sample(first) else every


class _Stream(IterableDataset[Any]):
    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return self._items


def _is_sample(item: Any) -> bool:
    """Tell whether an item is one sample: its label is a single number, or has another length than its input."""
    if isinstance(item, Batch):
        return False
    parts = list(item.values()) if isinstance(item, Mapping) else list(item) if isinstance(item, (tuple, list)) else []
    if isinstance(item, Mapping):
        return any(_is_single(part) for part in parts)
    if len(parts) < 2 or _is_single(parts[-1]):
        return len(parts) > 1
    arrays = [part for part in (parts[0], parts[-1]) if isinstance(part, (Tensor, np.ndarray))]
    return len(arrays) == 2 and len(arrays[0]) != len(arrays[1])


def _is_single(value: Any) -> bool:
    if isinstance(value, (Tensor, np.ndarray)):
        return value.ndim == 0
    return int_or_none(value) is not None or isinstance(value, (float, bool, str, np.generic))
