"""Covariances of random groups of samples, streamed, so that a spectrum can be bootstrapped without its samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import torch
from torch import Tensor

from captum_ablate.statistics.covariance import Covariance, eigenvalues

GROUPS = 40
"""Groups of samples that are drawn with replacement: the standard error then has 39 degrees of freedom."""

LEAST_GROUPS = 8
GROUP_BYTES = 2**30
"""Memory budget of all groups: 40 of 1,800 units, and no interval from 4,096 units on."""


def groups_for(units: Sequence[int]) -> int:
    """Return how many groups fit the budget for layers of these numbers of units; 1 where too few would."""
    fitting = GROUP_BYTES // (8 * sum(n * n for n in units))
    return min(GROUPS, fitting) if fitting >= LEAST_GROUPS else 1


@dataclass(frozen=True)
class GroupedCovariance:
    """One ``Covariance`` per random group of samples; mergeable with ``+``, group by group."""

    groups: tuple[Covariance, ...]

    @classmethod
    def of(cls, values: Tensor, group: np.ndarray[tuple[int], np.dtype[np.int64]], groups: int) -> GroupedCovariance:
        """Return the statistic of one batch, ``values [n, units]`` whose sample i belongs to ``group[i]``."""
        index = torch.from_numpy(group)
        return cls(tuple(Covariance.of(values[index == k]) for k in range(groups)))

    def __add__(self, other: GroupedCovariance) -> GroupedCovariance:
        return GroupedCovariance(tuple(a + b for a, b in zip(self.groups, other.groups, strict=True)))

    @property
    def total(self) -> Covariance:
        """The covariance of all samples."""
        return reduce(add, self.groups)

    def all_reduced(self) -> GroupedCovariance:
        """Return the statistic of the samples of all processes."""
        return replace(self, groups=tuple(one.all_reduced() for one in self.groups))

    def resampled(self, draws: Tensor) -> Tensor:
        """Return the eigenvalues, ``[replicates, units]``, of as many groups drawn with replacement.

        ``draws [replicates, groups]`` says how often each group is taken. All eigenvalues are 0 where the groups drawn
        are empty, as those of few samples can be.
        """
        total = self.total
        counts = torch.tensor([one.count for one in self.groups], dtype=torch.float64)
        means = torch.stack([one.mean for one in self.groups]) - total.mean
        scatters = torch.stack(
            [one.scatter + one.count * torch.outer(mean, mean) for one, mean in zip(self.groups, means, strict=True)]
        )  # around the common mean
        found = []
        for times in draws.to(torch.float64).split(8):  # a few at a time: a replicate is units x units
            count = times @ counts
            mean = (times @ (counts[:, None] * means)) / count.clamp(min=1)[:, None]
            scatter = torch.einsum("rg,gij->rij", times, scatters)
            scatter -= count[:, None, None] * mean[:, :, None] * mean[:, None, :]
            found.append(eigenvalues(scatter / (count - 1).clamp(min=1)[:, None, None]))
        return torch.cat(found)


def draw(replicates: int, groups: int, seed: int) -> Tensor:
    """Return how often each group is taken, ``[replicates, groups]``; each row adds up to ``groups``."""
    times = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=replicates)
    return torch.from_numpy(times)
