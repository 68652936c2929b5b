"""Bootstrap of a spectrum without its samples: covariances of random groups of samples, drawn with replacement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_ablate.statistics.covariance import Covariance, eigenvalues

GROUPS = 40
"""Groups of samples that are drawn with replacement: the standard error then has 39 degrees of freedom."""

LEAST_GROUPS = 8
GROUP_BYTES = 2**30
"""Memory budget of all groups: 40 groups up to 1,800 units, no interval from 4,096 units on."""


@dataclass(frozen=True)
class GroupedCovariance:
    """One ``Covariance`` per random group of samples; mergeable with ``+``, group by group."""

    groups: tuple[Covariance, ...]

    @classmethod
    def of(cls, values: Tensor, group: NDArray[np.int64], groups: int) -> GroupedCovariance:
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
        """Return the eigenvalues ``[replicates, units]`` of groups drawn with replacement.

        ``draws [replicates, groups]`` counts how often each group is drawn. All eigenvalues of a replicate are 0 if the
        groups drawn are empty, as those of few samples can be.
        """
        total = self.total
        counts = torch.tensor([one.count for one in self.groups], dtype=torch.float64)
        means = torch.stack([one.mean for one in self.groups]) - total.mean
        scatters = torch.stack(
            [one.scatter + one.count * torch.outer(mean, mean) for one, mean in zip(self.groups, means, strict=True)]
        )  # around the common mean
        spectra = []
        for times in draws.to(torch.float64).split(8):  # a few at a time: a replicate is units x units
            count = times @ counts
            mean = (times @ (counts[:, None] * means)) / count.clamp(min=1)[:, None]
            scatter = torch.einsum("rg,gij->rij", times, scatters)
            scatter -= count[:, None, None] * mean[:, :, None] * mean[:, None, :]
            spectra.append(eigenvalues(scatter / (count - 1).clamp(min=1)[:, None, None]))
        return torch.cat(spectra)


def grouped_covariances(batches: Iterable[Iterable[Tensor]]) -> list[GroupedCovariance]:
    """Stream ``batches`` of one ``values [n, units]`` per layer; return one grouped covariance per layer.

    The group of a sample depends on its position in the data alone, so all layers share the groups.
    """
    generator, total, groups = np.random.default_rng(0), list[GroupedCovariance](), 1
    for batch in batches:
        values = list(batch)
        if not total:
            groups = groups_within_budget([one.shape[1] for one in values])
        group = (generator.random(len(values[0])) * groups).astype(np.int64)
        new = [GroupedCovariance.of(one, group, groups) for one in values]
        total = [a + b for a, b in zip(total, new, strict=True)] if total else new
    return total


def groups_within_budget(units: Sequence[int]) -> int:
    """Return how many groups fit the memory budget for layers of ``units``; 1 if too few do."""
    fitting = GROUP_BYTES // (8 * sum(n * n for n in units))
    return min(GROUPS, fitting) if fitting >= LEAST_GROUPS else 1


def draw(replicates: int, groups: int, seed: int) -> Tensor:
    """Return how often each group is drawn, ``[replicates, groups]``; each row adds up to ``groups``."""
    times = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=replicates)
    return torch.from_numpy(times)
