"""Draw the samples of a data set in random order, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler, Subset

from captum_ablate.inputs.batch import Batch, as_tuple
from captum_ablate.inputs.batches import TENSOR_BATCH, Batches, UnpackBatch, as_batches
from captum_ablate.inputs.checks import Checks, float_type_of
from captum_ablate.inputs.values import whole_number


@dataclass(frozen=True)
class RandomOrder:
    """A random order of a data set: ``order [samples]`` holds positions; ``batches`` turns positions into samples."""

    order: Tensor
    batch_size: int
    batches: Callable[[Tensor], Batches]

    @classmethod
    def of(
        cls,
        data: Any,
        *,
        forward_func: Any,
        batch_size: int | None,
        unpack_batch: UnpackBatch | None,
        seed: int,
        classes: bool = True,
    ) -> RandomOrder:
        """Return the order of ``data``: tensors with labels, a map-style data set, or a ``DataLoader`` over one.

        Where ``classes`` is False the target may be ``[n, ...]`` of any type.
        """
        batch_size = None if batch_size is None else whole_number(batch_size, "batch_size", 1, "a positive int or None")
        options: dict[str, Any] = {"forward_func": forward_func, "classes": classes}
        if isinstance(data, DataLoader):
            _check_loader(data)
            samples, size = len(data.dataset), batch_size or data.batch_size or TENSOR_BATCH  # type: ignore[arg-type]

            def batches(places: Tensor) -> Batches:
                subset = Subset(data.dataset, places.tolist())
                loader = DataLoader(
                    subset,
                    batch_size=size,
                    collate_fn=data.collate_fn,
                    num_workers=data.num_workers,
                    pin_memory=data.pin_memory,
                )
                return as_batches(loader, unpack_batch=unpack_batch, **options)

        elif isinstance(data, Dataset) and not isinstance(data, IterableDataset):
            samples, size = len(data), batch_size or TENSOR_BATCH  # type: ignore[arg-type]  # map-style: it has a length

            def batches(places: Tensor) -> Batches:
                subset = Subset(data, places.tolist())
                return as_batches(subset, batch_size=size, unpack_batch=unpack_batch, **options)

        elif isinstance(data, tuple) and (isinstance(data, Batch) or len(data) == 2):
            size = batch_size or TENSOR_BATCH
            whole = _whole(data, size, options)
            samples = len(whole.target)

            def batches(places: Tensor) -> Batches:
                return as_batches(whole.take(places), batch_size=size, **options)

        else:
            raise TypeError(
                "until draws samples in random order, so data must be (inputs, target), a map-style data set or a "
                f"DataLoader over one; got {type(data).__name__}, whose samples have no positions"
            )
        return cls(torch.randperm(samples, generator=torch.Generator().manual_seed(seed)), size, batches)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.order)


def _whole(data: Any, size: int, options: Mapping[str, Any]) -> Batch:
    """Return the tensors and labels as one batch, checked, with what samples share named."""
    batch = data if isinstance(data, Batch) else Batch(as_tuple(data[0]), data[1])
    whole = Checks(None, float_type_of(options["forward_func"]), options["classes"]).checked(batch, 0)
    if not len(whole.target):
        raise ValueError("the data set is empty: no batch with at least one sample came")
    first = next(iter(as_batches(whole, batch_size=size, **options)))
    return whole._replace(shared=first.shared)


def _check_loader(loader: DataLoader[Any]) -> None:
    if isinstance(loader.dataset, IterableDataset) or not hasattr(loader.dataset, "__len__"):
        raise TypeError(
            "until draws samples in random order, and the DataLoader's data set yields them one after the other; "
            "pass a map-style data set, with __getitem__ and __len__"
        )
    if not isinstance(loader.sampler, (SequentialSampler, RandomSampler)) or loader.batch_size is None:
        raise ValueError(
            f"until draws samples in an order of its own, and the DataLoader has a {type(loader.sampler).__name__} "
            "or batches of its own; pass a DataLoader over torch.utils.data.Subset(dataset, indices)"
        )
    if isinstance(loader.sampler, RandomSampler) and loader.sampler.num_samples != len(loader.dataset):
        raise ValueError(
            "until draws each sample once, and the DataLoader's RandomSampler draws another number than the data "
            "set has; pass a DataLoader without num_samples"
        )
