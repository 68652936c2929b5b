"""Counts and sums of activations per class, and the merging of any statistic per class.

Every statistic starts from pooled activations ``values [n, units]`` and ``target [n]`` (int64). Sums are float64 and
counts integer, so neither the order of samples nor the split into batches matters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from captum_ablate.inputs.units import check_same_units
from captum_ablate.statistics.blocks import blocks, scratch


@dataclass(frozen=True)
class Labels:
    """The labels of samples, ``target [n]``, and those present, ``classes [classes]``, ascending.

    ``index [n]`` is the place of each label in them: ``classes[index]`` is ``target``.
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

        ``nonnegative`` says that no value is below 0, which saves the absolute values.
        """
        labels = Labels.of(target)
        classes, index = labels.classes, labels.index
        sums, absolute_sums = torch.zeros(2, len(classes), values.shape[1], dtype=torch.float64)
        wide = scratch(values, torch.float64)
        for block in blocks(values):
            part = wide[: len(values[block])].copy_(values[block])
            sums.index_add_(0, index[block], part)
            if not nonnegative:
                absolute_sums.index_add_(0, index[block], part.abs_())
        counts = torch.bincount(index, minlength=len(classes))
        return cls(classes, counts, sums, sums.clone() if nonnegative else absolute_sums)

    def __add__(self, other: ClassMoments) -> ClassMoments:
        check_same_units(self.sums.shape[1], other.sums.shape[1])
        classes, (counts, sums, absolute_sums) = merge(
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


def merge(a: tuple[Tensor, tuple[Tensor, ...]], b: tuple[Tensor, tuple[Tensor, ...]]) -> tuple[Tensor, list[Tensor]]:
    """Add tensors whose first axis is classes, aligned by class."""
    if torch.equal(a[0], b[0]):
        return a[0], [x + y for x, y in zip(a[1], b[1], strict=True)]
    classes, index = torch.unique(torch.cat([a[0], b[0]]), return_inverse=True)
    merged = []
    for x, y in zip(a[1], b[1], strict=True):
        both = torch.cat([x, y])
        merged.append(both.new_zeros(len(classes), *both.shape[1:]).index_add(0, index, both))
    return classes, merged
