"""What a score needs of the data: sums over samples, streamed batch by batch and merged with ``+``.

Every statistic starts from pooled activations ``values [n, units]`` (float64) and ``target [n]`` (int64). Sums are
float64 and histograms integer, so the order of samples and the split into batches do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


class Pooled(NamedTuple):
    """A batch of pooled activations: ``values [n, units]``, ``target [n]``, positions averaged into each value."""

    values: Tensor
    target: Tensor
    positions: int = 1


@dataclass(frozen=True)
class ClassMoments:
    """Counts and sums per class: ``classes [classes]``, ``counts [classes]``, ``sums [classes, units]``."""

    classes: Tensor
    counts: Tensor
    sums: Tensor
    absolute_sums: Tensor

    @classmethod
    def of(cls, values: Tensor, target: Tensor) -> ClassMoments:
        """Return the moments of one batch, ``values [n, units]``, ``target [n]``."""
        classes, index = torch.unique(target, return_inverse=True)
        zeros = values.new_zeros(len(classes), values.shape[1])
        return cls(
            classes,
            torch.bincount(index, minlength=len(classes)),
            zeros.index_add(0, index, values),
            zeros.index_add(0, index, values.abs()),
        )

    def __add__(self, other: ClassMoments) -> ClassMoments:
        classes, (counts, sums, absolute_sums) = _merge(
            (self.classes, (self.counts, self.sums, self.absolute_sums)),
            (other.classes, (other.counts, other.sums, other.absolute_sums)),
        )
        return ClassMoments(classes, counts, sums, absolute_sums)

    @property
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
    def of(cls, values: Tensor, target: Tensor, edges: Tensor) -> ClassHistogram:
        """Return the histogram of one batch; a value's bin is the number of ``edges`` below it.

        ``edges`` are ascending: ``[bins - 1]`` for all units, or ``[units, 1]`` for one threshold per unit.
        """
        classes, index = torch.unique(target, return_inverse=True)
        units = values.shape[1]
        shared = edges.ndim == 1
        bins = edges.shape[-1] + 1
        quantised = torch.bucketize(values, edges) if shared else (values > edges[:, 0]).to(torch.int64)
        cell = (index[:, None] * units + torch.arange(units)) * bins + quantised
        counts = torch.bincount(cell.flatten(), minlength=len(classes) * units * bins)
        return cls(classes, counts.reshape(len(classes), units, bins))

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
    """The pooled activations themselves: ``values [n, units]``, ``target [n]``, in the order of the data."""

    values: Tensor
    target: Tensor

    @property
    def classes(self) -> Tensor:
        """The labels present, ascending, ``[classes]``."""
        return torch.unique(self.target)


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
