"""Turn tensors, or any iterable of batches, into checked batches on the device of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from captum_ablate.inputs.batch import Batch, Name, as_tuple
from captum_ablate.inputs.checks import Checks, float_type_of
from captum_ablate.inputs.fingerprint import DataDigest, sample_digests
from captum_ablate.inputs.forms import is_input, is_target, refuse_other_data
from captum_ablate.inputs.model import device_of
from captum_ablate.inputs.shared import RowsSeen, shared_by_accident
from captum_ablate.inputs.sources import Slices, Streamed
from captum_ablate.inputs.values import ARRAYS, whole_number
from captum_ablate.inputs.warnings import warn

TENSOR_BATCH = 256
"""Samples in a batch if tensors come without ``batch_size``: enough for speed, little enough for memory."""


UnpackBatch = Callable[[Any], Any]


class Batches:
    """A re-iterable of checked batches on one device.

    Targets are int64 ``[n]``, or, if ``classes`` is False, ``[n, ...]`` of any type.
    """

    def __init__(
        self,
        source: Iterable[Any],
        unpack_batch: UnpackBatch | None = None,
        forward_func: Any = None,
        classes: bool = True,
    ) -> None:
        self._source, self._unpack, self._forward_func = source, unpack_batch or _unpack, forward_func
        self._checks = Checks(device_of(forward_func), float_type_of(forward_func), classes, True)
        self.one_shot = isinstance(source, Iterator) or bool(getattr(source, "one_shot", False))
        self._started, self._rows = False, RowsSeen()
        self._shared: tuple[Name, ...] | None = None
        self._keeps_digest = False
        self._digests: tuple[Batch, list[bytes] | None] | None = None
        self.digest: DataDigest | None = None
        """The samples of the first whole pass, if ``keep_digest`` was called before it."""

    @property
    def owner(self) -> object:
        """Source of the batches. Its random generator, if it has one, gets its state back after use."""
        return self._source

    def __len__(self) -> int:
        """Return the number of batches if the source knows it; else ``TypeError``, as usual."""
        return len(self._source)  # type: ignore[arg-type]  # TypeError is what len() promises here

    @property
    def samples(self) -> int | None:
        """Number of samples, or None if the source does not know it."""
        if isinstance(self._source, Slices):
            return self._source.samples
        if isinstance(self._source, list):
            return sum(len(b.target) for b in self._source) if all(isinstance(b, Batch) for b in self._source) else None
        if not isinstance(self._source, DataLoader) or self._source.batch_size is None:
            return None
        try:
            n = len(self._source.sampler)  # type: ignore[arg-type]  # TypeError is caught
        except TypeError:
            return None
        return n - n % self._source.batch_size if self._source.drop_last else n

    def digests(self, batch: Batch) -> list[bytes] | None:
        """Return ``sample_digests`` of the batch that came last, taken once."""
        if self._digests is None or self._digests[0] is not batch:
            self._digests = batch, sample_digests(batch)
        return self._digests[1]

    def keep_digest(self) -> None:
        """Take the digests of the samples during the next whole pass."""
        self._keeps_digest = True

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
        empty, digest = True, DataDigest() if self._keeps_digest and self.digest is None else None
        for number, item in enumerate(self._source):
            batch = self._checks.checked(self._unpack(item), number)
            if not len(batch.target):
                continue
            empty = False
            if self._finds_shared(batch) and isinstance(self._source, Slices):
                self._source = self._source.sharing(self._shared or ())
                yield from self
                return
            batch = batch._replace(shared=(*batch.shared, *(self._shared or ())))
            self._rows.look(batch, number)
            if digest is not None:
                digest.add(batch, self.digests(batch))
            yield batch
        if empty:
            raise ValueError("the data set is empty: no batch with at least one sample came")
        self.digest = digest or self.digest

    def _finds_shared(self, batch: Batch) -> bool:
        """Look, once, for arguments that have a row per sample by accident; tell whether there are any."""
        if self._shared is not None:
            return False
        self._shared = shared_by_accident(self._forward_func, batch)
        if not self._shared:
            return False
        warn(
            f"argument{'s' if len(self._shared) > 1 else ''} {', '.join(map(repr, self._shared))} of the model looks "
            f"shared by all samples, although it has as many rows as there are samples ({len(batch.target)}): without "
            "a row of it other samples' outputs change. It is not cut; to say so, and be rid of this warning, pass "
            f"Batch(inputs, target, additional_forward_args, shared={self._shared!r})"
        )
        return True


def as_batches(
    data: Any,
    *,
    forward_func: Any = None,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    classes: bool = True,
) -> Batches:
    """Return the batches of ``data``: ``(inputs, target)``, a ``Batch``, a data set, or an iterable of batches.

    Where ``classes`` is False the target may be ``[n, ...]`` of any type.

    Raises:
        TypeError: if the data are none of these; the message says what to pass.
        ValueError: if ``batch_size`` is no positive int.
    """
    if isinstance(data, Batches):
        return data
    size = TENSOR_BATCH if batch_size is None else whole_number(batch_size, "batch_size", 1, "a positive int or None")
    if isinstance(data, Batch) or (isinstance(data, tuple) and len(data) == 2 and is_target(data[1])):
        batch = data if isinstance(data, Batch) else Batch(as_tuple(data[0]), data[1])
        whole = Checks(None, float_type_of(forward_func), classes).checked(batch, 0)
        return Batches(Slices(whole, size), None, forward_func, classes)
    if isinstance(data, IterableDataset):
        return Batches(Streamed(data, size), unpack_batch, forward_func, classes)
    if isinstance(data, Dataset):
        return Batches(DataLoader(data, batch_size=size), unpack_batch, forward_func, classes)
    refuse_other_data(data)
    return Batches(data, unpack_batch, forward_func, classes)


def batches_of_call(
    inputs: Any,
    target: Any,
    additional_forward_args: Any,
    *,
    forward_func: Any,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    classes: bool = True,
) -> Batches:
    """Return the batches of ``attribute(inputs, target=...)``: arrays mean inputs, anything else batches."""
    extra = () if additional_forward_args is None else as_tuple(additional_forward_args)
    options: dict[str, Any] = {"forward_func": forward_func, "batch_size": batch_size, "classes": classes}
    arrays = isinstance(inputs, (Tensor, *ARRAYS)) or (
        isinstance(inputs, tuple) and len(inputs) > 0 and all(isinstance(x, (Tensor, *ARRAYS)) for x in inputs)
    )
    if isinstance(inputs, Batch):
        arrays = False
    if arrays and target is None:
        raise ValueError(
            "target is missing: pass target=, the class of each sample ([n] integers), because a score over a "
            "labelled data set compares classes; or pass an iterable of batches (*inputs, labels). A tuple of "
            "tensors is several inputs, not (inputs, target)"
        )
    if target is not None and (arrays or is_input(inputs)):
        return as_batches(Batch(as_tuple(inputs), target, extra), **options)
    if target is not None or extra:
        raise ValueError(
            f"inputs must be a Tensor or a tuple of Tensors where target is given; got {type(inputs).__name__}. "
            "target and additional_forward_args go with tensor inputs; an iterable of batches brings its own, "
            "as (*inputs, labels) or through unpack_batch"
        )
    return as_batches(inputs, unpack_batch=unpack_batch, **options)


def _unpack(item: Any) -> Any:
    if isinstance(item, (Batch, tuple, list)):
        return item if isinstance(item, Batch) else Batch(tuple(item[:-1]), item[-1] if item else None)
    raise TypeError(
        f"each batch must be (*inputs, labels); got {type(item).__name__}. "
        "Pass unpack_batch=f, where f(batch) returns Batch(inputs, target, additional_forward_args)."
    )
