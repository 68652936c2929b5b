"""Data in two halves, one to rank on and one to evaluate on: drawn at random with a seed, each class in proportion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler, Subset

from captum_ablate.commands.images import Images
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.batches import as_batches
from captum_ablate.inputs.fingerprint import sample_digests
from captum_ablate.inputs.forms import is_target
from captum_ablate.inputs.targets import classes_of

Indices = NDArray[np.intp]


def at_most(data: Any, size: int, seed: int, option: str) -> Any:
    """Return at most ``size`` samples of ``data``, each class in proportion.

    Raises:
        ValueError: if ``size`` is below 2, or the samples of the data have no positions. The text names ``option``.
    """
    if size < 2:
        raise ValueError(f"--samples must be at least 2; got {size}")
    order = _by_class(data, seed)
    if order is None:
        raise ValueError(
            f"--samples needs data whose samples have positions: {option} must be tensors, a data set or a DataLoader "
            "of one, not an iterable of batches"
        )
    if len(order) <= size:
        return data
    return _take(data, np.sort(order[np.linspace(0, len(order) - 1, size).round().astype(np.intp)]))


def halves(data: Any, seed: int) -> tuple[Any, Any]:
    """Return the half of ``data`` to rank on, and the half to evaluate on; no sample is in both.

    Batches of an iterable are halved by the digests of their samples, so that a loader may shuffle.

    Raises:
        ValueError: if there are fewer than two samples.
    """
    order = _by_class(data, seed)
    if order is None:
        return _Half(data, 0, seed), _Half(data, 1, seed)
    if len(order) < 2:
        raise ValueError("data must have at least two samples, one to rank on and one to evaluate on")
    return _take(data, np.sort(order[::2])), _take(data, np.sort(order[1::2]))


class _Half:
    """The samples of batches whose digest, hashed with a seed, is even, or those whose is odd."""

    def __init__(self, batches: Any, part: int, seed: int) -> None:
        self._batches, self._part, self._key = as_batches(batches, classes=False), part, str(seed).encode()
        self.one_shot = self._batches.one_shot  # so that a generator is refused before it is used up
        self._batches.refuse_one_shot("one half is ranked on, the other evaluated")

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            digests = sample_digests(batch)
            if digests is None:
                raise ValueError(
                    "the samples of these data cannot be cut apart, so they cannot be halved; pass --ranking-data, "
                    "other data to rank on"
                )
            own = [k for k, one in enumerate(digests) if self._part_of(one) == self._part]
            if own:
                yield batch.take(torch.tensor(own))

    def _part_of(self, digest: bytes) -> int:
        return blake2b(digest, key=self._key, digest_size=1).digest()[0] % 2


def _by_class(data: Any, seed: int) -> Indices | None:
    """Return the positions of the samples in random order, class by class; None if they have no positions.

    So each n-th of them has every class in proportion, to one sample.
    """
    inside = data.dataset if isinstance(data, DataLoader) else data
    if isinstance(data, DataLoader) and (
        data.batch_size is None or not isinstance(data.sampler, (RandomSampler, SequentialSampler))
    ):
        return None  # batches come from a sampler of the user's
    if isinstance(inside, Batch) or _is_pair(inside):
        classes = classes_of(_whole(inside).target)
        n = len(_whole(inside).target)
        targets: Sequence[int] | None = None if classes is None else classes.tolist()
    elif isinstance(inside, Dataset) and not isinstance(inside, IterableDataset) and hasattr(inside, "__len__"):
        targets, n = _targets(inside), len(inside)
    else:
        return None
    order = np.random.default_rng(seed).permutation(n)
    return order if targets is None else order[np.argsort(np.asarray(targets)[order], kind="stable")]


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple) and len(data) == 2 and is_target(data[1])


def _whole(data: Any) -> Batch:
    """Return tensors as one checked batch."""
    return next(iter(as_batches(data, batch_size=2**40, classes=False)))


def _targets(dataset: Any) -> Sequence[int] | None:
    """Return the class of each sample where a data set tells it without reading the samples."""
    if isinstance(dataset, Subset):
        inside = _targets(dataset.dataset)
        return None if inside is None else [inside[k] for k in dataset.indices]
    targets = getattr(dataset, "targets", None)
    if targets is None or len(targets) != len(dataset):
        return None
    values = np.asarray(targets)
    return values.tolist() if values.ndim == 1 and values.dtype.kind in "iu" else None


def _take(data: Any, samples: Indices) -> Any:
    if isinstance(data, Images):
        return data.take(samples.tolist())
    if isinstance(data, DataLoader):
        options = {name: getattr(data, name) for name in ("batch_size", "num_workers", "collate_fn", "pin_memory")}
        return DataLoader(_take(data.dataset, samples), **options)
    if isinstance(data, Dataset):
        return Subset(data, samples.tolist())
    return _whole(data).take(torch.from_numpy(samples))
