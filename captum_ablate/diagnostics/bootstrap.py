"""Covariances of random groups of samples: a bootstrap of the spectrum, and fourth moments, without the samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import NamedTuple

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


class FourthMoments(NamedTuple):
    """Fourth moments of a code along its eigenvectors, z_i being of variance 1; both are 1 for a Gaussian code.

    ``mixed`` is the mean E[z_i^2 z_j^2] over pairs of eigenvectors: above 1 where the lengths of samples vary more.
    ``slope`` is the variance of what moves the slope of a fit, sum_i c_i z_i^2, over that of Gaussian samples as many
    as ``mixed`` leaves.
    """

    mixed: float
    slope: float


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

    def fourth_moments(self, fit_range: tuple[int, int]) -> FourthMoments:
        """Return the fourth moments along the eigenvectors of the ranks of ``fit_range``, from how groups differ.

        A product z_i z_j summed over the n samples of a group varies by n E[z_i^2 z_j^2] between groups.
        """
        total, groups = self.total, len(self.groups)
        values, vectors = torch.linalg.eigh(total.matrix)
        ranks = slice(fit_range[0] - 1, fit_range[1])
        white = vectors.flip(1)[:, ranks] / values.flip(0)[ranks].sqrt()
        logs = torch.arange(fit_range[0], fit_range[1] + 1, dtype=torch.float64).log()
        weights = (logs - logs.mean()) / (logs - logs.mean()).square().sum()
        squares, slopes = torch.zeros(len(logs), len(logs), dtype=torch.float64), []
        for one in self.groups:
            apart = white.T @ (one.mean - total.mean)
            scatter = white.T @ one.scatter @ white + one.count * torch.outer(apart, apart)
            squares += scatter.square()
            slopes.append(scatter.diagonal() @ weights)
        unbiased = groups / (groups - 1) / total.count
        pairs = ~torch.eye(len(logs), dtype=torch.bool)
        mixed = float(squares[pairs].mean()) * unbiased
        slope, counts = torch.stack(slopes), torch.tensor([one.count for one in self.groups], dtype=torch.float64)
        spread = float((slope - counts * slope.sum() / total.count).square().sum()) * unbiased
        return FourthMoments(mixed, spread / (2 * float(weights.square().sum()) * mixed))

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
