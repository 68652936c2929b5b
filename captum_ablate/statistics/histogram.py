"""Counts of quantised activations per class, and the entropies and divergences that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import log

import torch
from torch import Tensor

from captum_ablate.statistics.binning import counts_of_bins, counts_of_one_bit
from captum_ablate.statistics.moments import Labels, merge


@dataclass(frozen=True)
class ClassHistogram:
    """Counts of quantised activations: ``classes [classes]``, ``counts [classes, units, bins]`` (int64)."""

    classes: Tensor
    counts: Tensor

    @classmethod
    def of(cls, values: Tensor, target: Tensor | Labels, edges: Tensor) -> ClassHistogram:
        """Return the histogram of one batch, ``values [n, units]`` of any floating type, ``target [n]``.

        A value's bin is the number of ``edges`` below it. They ascend: ``[bins - 1]`` for all
        units, or ``[units, 1]`` for one threshold per unit.
        """
        labels = Labels.of(target)
        classes, index = labels.classes, labels.index
        if edges.shape[-1] == 1:
            counts = counts_of_one_bit(values, index, edges.squeeze(-1), len(classes))
        else:
            counts = counts_of_bins(values, index, edges, len(classes))
        return cls(classes, counts)

    def __add__(self, other: ClassHistogram) -> ClassHistogram:
        classes, (counts,) = merge((self.classes, (self.counts,)), (other.classes, (other.counts,)))
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
