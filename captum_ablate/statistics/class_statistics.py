"""What a score needs of the data: sums over samples, streamed batch by batch and merged with ``+``.

Every statistic starts from pooled activations ``values [n, units]`` (float64) and ``target [n]`` (int64). Sums are
float64 and histograms integer, so the order of samples and the split into batches do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import log
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BLOCK = 2**17
"""Values that are counted at a time: 1 MiB of float64, which stays in cache."""


class Pooled(NamedTuple):
    """A batch of pooled activations: ``values [n, units]``, ``target [n]``, positions averaged into each value.

    On any device; float64, or the layer's own type where nothing was averaged.
    """

    values: Tensor
    target: Tensor
    positions: int = 1


@dataclass(frozen=True)
class Labels:
    """The labels of samples: ``target [n]``, those present ``classes [classes]``, ascending, each one's place in them.

    ``classes[index]`` is ``target``.
    """

    target: Tensor
    classes: Tensor
    index: Tensor

    @classmethod
    def of(cls, target: Tensor | Labels) -> Labels:
        """Return the labels of ``target [n]``, integers."""
        if isinstance(target, Labels):
            return target
        if len(target) and int(target.min()) >= 0 and int(target.max()) <= len(target):
            present = torch.bincount(target) > 0  # labels that are small numbers need no sorting: 5 times as fast
            return cls(target, present.nonzero().flatten(), (present.cumsum(0) - 1)[target])
        return cls(target, *torch.unique(target, return_inverse=True))


@dataclass(frozen=True)
class ClassMoments:
    """Counts and sums per class: ``classes [classes]``, ``counts [classes]``, ``sums [classes, units]``."""

    classes: Tensor
    counts: Tensor
    sums: Tensor
    absolute_sums: Tensor

    @classmethod
    def of(cls, values: Tensor, target: Tensor | Labels, *, nonnegative: bool = False) -> ClassMoments:
        """Return the moments of one batch of any floating type, ``values [n, units]``, ``target [n]``.

        ``nonnegative`` says that no value is below 0, and saves a look at them.
        """
        labels = Labels.of(target)
        classes, index = labels.classes, labels.index
        sums, absolute_sums = torch.zeros(2, len(classes), values.shape[1], dtype=torch.float64)
        wide = _scratch(values, torch.float64)
        for block in _blocks(values):
            part = wide[: len(values[block])].copy_(values[block])
            sums.index_add_(0, index[block], part)
            if not nonnegative:
                absolute_sums.index_add_(0, index[block], part.abs_())
        counts = torch.bincount(index, minlength=len(classes))
        return cls(classes, counts, sums, sums.clone() if nonnegative else absolute_sums)

    def __add__(self, other: ClassMoments) -> ClassMoments:
        classes, (counts, sums, absolute_sums) = _merge(
            (self.classes, (self.counts, self.sums, self.absolute_sums)),
            (other.classes, (other.counts, other.sums, other.absolute_sums)),
        )
        return ClassMoments(classes, counts, sums, absolute_sums)

    @cached_property
    def means(self) -> Tensor:
        """Mean activation per class, ``[classes, units]``."""
        return self.sums / self.counts[:, None]

    @property
    def absolute_means(self) -> Tensor:
        """Mean absolute activation per class, ``[classes, units]``."""
        return self.absolute_sums / self.counts[:, None]

    @property
    def mean(self) -> Tensor:
        """Mean activation over all samples, ``[units]``."""
        return self.sums.sum(0) / self.counts.sum()

    @property
    def absolute_mean(self) -> Tensor:
        """Mean absolute activation over all samples, ``[units]``."""
        return self.absolute_sums.sum(0) / self.counts.sum()


@dataclass(frozen=True)
class ClassHistogram:
    """Counts of quantised activations: ``classes [classes]``, ``counts [classes, units, bins]`` (int64)."""

    classes: Tensor
    counts: Tensor

    @classmethod
    def of(cls, values: Tensor, target: Tensor | Labels, edges: Tensor) -> ClassHistogram:
        """Return the histogram of one batch of any floating type; a value's bin is the number of ``edges`` below it.

        ``edges`` are ascending: ``[bins - 1]`` for all units, or ``[units, 1]`` for one threshold per unit.
        """
        labels = Labels.of(target)
        classes, index = labels.classes, labels.index
        if edges.shape[-1] == 1:
            counts = _counts_of_one_bit(values, index, edges.squeeze(-1), len(classes))
        else:
            counts = _counts(values, index, edges, len(classes))
        return cls(classes, counts)

    def __add__(self, other: ClassHistogram) -> ClassHistogram:
        classes, (counts,) = _merge((self.classes, (self.counts,)), (other.classes, (other.counts,)))
        return ClassHistogram(classes, counts)

    @cached_property
    def p_class(self) -> Tensor:
        """P(Y = c), ``[classes]``."""
        per_class = self.counts[:, 0].sum(-1).to(torch.float64)
        return per_class / per_class.sum()

    @cached_property
    def p_bin(self) -> Tensor:
        """P(T = t), ``[units, bins]``."""
        return self.counts.sum(0).double() / self.counts[:, 0].sum()

    @cached_property
    def p_bin_given_class(self) -> Tensor:
        """P(T = t given Y = c), ``[classes, units, bins]``."""
        return self.counts.double() / self.counts.sum(-1, keepdim=True)

    @cached_property
    def entropy(self) -> Tensor:
        """H(T) in bits, ``[units]``."""
        return torch.special.xlogy(self.p_bin, self.p_bin).sum(dim=-1).abs() / log(2)

    @cached_property
    def specific_information(self) -> Tensor:
        """D(P(T given c) to P(T)) in bits, ``[classes, units]``."""
        given, marginal = self.p_bin_given_class, self.p_bin
        ratio = torch.where(given > 0, given / marginal, 1.0)  # 0 log 0 = 0; given > 0 implies marginal > 0
        return (given * ratio.log2()).sum(dim=-1).clamp(min=0)


@dataclass(frozen=True)
class ValueRange:
    """Smallest and largest pooled activation of the whole layer, and whether a value pools several positions."""

    low: float
    high: float
    has_positions: bool

    @classmethod
    def of(cls, values: Tensor, positions: int) -> ValueRange:
        """Return the range of one batch, ``values [n, units]``."""
        return cls(float(values.min()), float(values.max()), positions > 1)

    def __add__(self, other: ValueRange) -> ValueRange:
        return ValueRange(
            min(self.low, other.low), max(self.high, other.high), self.has_positions or other.has_positions
        )


@dataclass(frozen=True)
class ActivationTable:
    """The pooled activations themselves: ``values [n, units]``, ``target [n]``, in the order of the data.

    ``stored`` are the values, whole or in parts one after the other, of any floating type.
    """

    stored: Tensor | tuple[Tensor, ...]
    target: Tensor

    @cached_property
    def values(self) -> Tensor:
        """The activations, ``[n, units]``, float64; joined and widened when first asked for."""
        if isinstance(self.stored, Tensor):
            return self.stored.to(torch.float64)
        table = torch.empty(len(self.target), self.stored[0].shape[1], dtype=torch.float64)
        torch.cat(self.stored, out=table)
        return table

    @property
    def classes(self) -> Tensor:
        """The labels present, ascending, ``[classes]``."""
        return Labels.of(self.target).classes


def check_rows(values: Tensor, n: int, name: str) -> None:
    """Raise if activations ``[n, units]`` of layer ``name`` are not one row per sample."""
    if len(values) != n:
        raise ValueError(
            f"layer {name!r} gives {len(values)} rows for {n} samples; the first axis of its output must be the samples"
        )


def check_finite(values: Tensor, name: str, number: int) -> None:
    """Raise if activations ``[n, units]`` of layer ``name`` in batch ``number`` are not finite."""
    if bool(torch.stack(torch.aminmax(values)).isfinite().all()):  # NaN is the smallest and the largest where it is
        return
    bad = (~torch.isfinite(values)).any(0).nonzero().flatten().tolist()
    raise ValueError(
        f"layer {name!r} has NaN or infinite activations in batch {number}, unit {bad[0]}"
        + (f" and {len(bad) - 1} more" if len(bad) > 1 else "")
        + "; check the inputs and the weights of the model"
    )


def _counts_of_one_bit(values: Tensor, index: Tensor, edge: Tensor, classes: int) -> Tensor:
    """Return the counts ``[classes, units, 2]`` of ``values <= edge`` and ``values > edge``."""
    below = edge.to(
        values.dtype
    )  # a value of this type is above the edge if it is above the largest such value up to it
    below = torch.where(below.to(torch.float64) > edge, below.nextafter(below.new_tensor(-torch.inf)), below)
    counting = torch.float32 if len(values) < 2**24 else torch.float64  # what counts up to there without rounding
    above = torch.zeros(classes, values.shape[1], dtype=counting)
    is_above = _scratch(values, counting)
    for block in _blocks(values):
        part = torch.gt(values[block], below, out=is_above[: len(values[block])])  # 10 times as fast as .to(counting)
        above.index_add_(0, index[block], part)
    counts = above.to(torch.int64)
    return torch.stack([torch.bincount(index, minlength=classes)[:, None] - counts, counts], dim=-1)


def _counts(values: Tensor, index: Tensor, edges: Tensor, classes: int) -> Tensor:
    """Return the counts ``[classes, units, bins]`` for the shared edges ``[bins - 1]``."""
    units, bins = values.shape[1], len(edges) + 1
    counts = torch.zeros(classes * units * bins, dtype=torch.int64)
    whole = torch.int32 if len(counts) < 2**31 else torch.int64  # the narrow type is counted twice as fast
    put_bins = _put_bins(edges, values)
    unit_cell = torch.arange(units, dtype=whole) * bins
    class_cell = (index * (units * bins)).to(whole)[:, None]
    scratch = _scratch(values, whole)
    for block in _blocks(values):
        cells = scratch[: len(values[block])]
        put_bins(values[block], cells)
        cells.add_(unit_cell).add_(class_cell[block])
        counts += torch.bincount(cells.flatten(), minlength=len(counts))
    return counts.reshape(classes, units, bins)


def _blocks(values: Tensor) -> Iterator[slice]:
    """Yield the rows of ``values`` a block at a time."""
    rows = max(1, BLOCK // max(1, values.shape[1]))
    return (slice(start, start + rows) for start in range(0, len(values), rows))


def _scratch(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return memory for one block of ``values``, written to again and again, so that it stays in cache."""
    return torch.empty(min(len(values), max(1, BLOCK // max(1, values.shape[1]))), values.shape[1], dtype=dtype)


def _put_bins(edges: Tensor, all_values: Tensor) -> Callable[[Tensor, Tensor], None]:
    """Return the function that writes, for a block of values, the bin of each into its second argument.

    A value's bin is the number of ``edges`` below it. Edges of equal distance need no search: a value's place in units
    of the distance, rounded down, is its bin. Only values so near to an edge that rounding errors count are searched.
    """

    def search(values: Tensor, bins: Tensor) -> None:
        bins.copy_(torch.bucketize(values.to(torch.float64), edges))

    n = len(edges) + 1
    low, high = float(edges[0]), float(edges[-1])
    step = (high - low) / (n - 2)
    if not step > 0:
        return search
    scale, shift = 1 / step, 1 - low / step  # edge k, counted from 0, stands at 1 + k
    uneven = float((edges * scale + shift - torch.arange(1, n, dtype=torch.float64)).abs().max())

    def error(dtype: torch.dtype) -> float:
        """Return more than a place is off by, where it is computed in ``dtype``."""
        kind = torch.finfo(dtype)
        if not kind.tiny < scale < kind.max:
            return torch.inf
        return 1e-9 + 2 * uneven + 4 * kind.eps * (n + scale * max(abs(low), abs(high)))

    narrow = all_values.dtype == torch.float32 and error(torch.float32) < 1e-3  # twice as fast; few are searched
    dtype = torch.float32 if narrow else torch.float64
    near, spare = error(dtype), _scratch(all_values, dtype)
    if near > 0.25:
        return search

    def arithmetic(values: Tensor, bins: Tensor) -> None:
        place = torch.mul(values.to(dtype), scale, out=spare[: len(values)]).add_(shift).clamp_(0.5, n - 0.5)
        bins.copy_(place)  # rounds down
        from_middle = place.frac_().sub_(0.5).abs_()
        close = torch.from_numpy(np.flatnonzero(from_middle.numpy() > 0.5 - near))  # torch takes 10 times as long
        if len(close):
            found = torch.bucketize(values.flatten()[close].to(torch.float64), edges)
            bins.view(-1)[close] = found.to(bins.dtype)

    return arithmetic


def _merge(a: tuple[Tensor, tuple[Tensor, ...]], b: tuple[Tensor, tuple[Tensor, ...]]) -> tuple[Tensor, list[Tensor]]:
    """Add tensors whose first axis is classes, aligned by class."""
    if torch.equal(a[0], b[0]):
        return a[0], [x + y for x, y in zip(a[1], b[1], strict=True)]
    classes, index = torch.unique(torch.cat([a[0], b[0]]), return_inverse=True)
    merged = []
    for x, y in zip(a[1], b[1], strict=True):
        both = torch.cat([x, y])
        merged.append(both.new_zeros(len(classes), *both.shape[1:]).index_add(0, index, both))
    return classes, merged
