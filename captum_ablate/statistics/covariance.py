"""The covariance of pooled activations: a sum over samples, merged over batches with ``+`` and over processes.

Sums are float64 and taken around the mean of each part, so that a mean far from zero costs no digits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Covariance:
    """Count, mean and scatter of samples: ``count``, ``mean [units]``, ``scatter [units, units]``.

    scatter = sum_i (a_i - mean)(a_i - mean)^T, so the covariance is scatter / (count - 1).
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Covariance:
        """Return the statistic of one batch, ``values [n, units]``; n may be 0."""
        values = values.to(torch.float64)
        mean = values.mean(dim=0) if len(values) else values.new_zeros(values.shape[1])
        centred = values - mean
        return cls(len(values), mean, centred.T @ centred)

    def __add__(self, other: Covariance) -> Covariance:
        """Merge two disjoint sets of samples (Chan, Golub and LeVeque 1983)."""
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"covariances of {len(self.mean)} and of {len(other.mean)} units cannot be merged; they must be of one "
                "layer with one number of units"
            )
        count = self.count + other.count
        if count == 0:
            return self
        apart = other.mean - self.mean
        return Covariance(
            count,
            self.mean + apart * (other.count / count),
            self.scatter + other.scatter + torch.outer(apart, apart) * (self.count * other.count / count),
        )

    @property
    def matrix(self) -> Tensor:
        """The covariance, ``[units, units]``; NaN for fewer than two samples."""
        return self.scatter / (self.count - 1) if self.count > 1 else torch.full_like(self.scatter, torch.nan)

    @property
    def largest_square(self) -> float:
        """The largest mean square of a unit."""
        squares = self.scatter.diagonal() / max(1, self.count) + self.mean.square()
        return float(squares.max()) if len(squares) else 0.0

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of the covariance, largest first, ``[units]``; rounding below zero is cut off."""
        return eigenvalues(self.matrix)

    def all_reduced(self, group: dist.ProcessGroup | None = None) -> Covariance:
        """Return the statistic of the samples of all processes of ``group``, the same in each.

        Two sums over the processes: counts and means first, then each process's scatter around the common mean.
        """
        device = torch.device("cuda") if dist.get_backend(group) == "nccl" else torch.device("cpu")
        own = torch.tensor([self.count], dtype=torch.float64)
        sums = torch.cat([own, self.mean * self.count]).to(device)
        dist.all_reduce(sums, group=group)
        count, mean = round(float(sums[0])), (sums[1:] / sums[0].clamp(min=1)).to(self.mean.device)
        apart = self.mean - mean
        scatter = (self.scatter + torch.outer(apart, apart) * self.count).to(device)
        dist.all_reduce(scatter, group=group)
        return Covariance(count, mean, scatter.to(self.scatter.device))


def eigenvalues(matrix: Tensor) -> Tensor:
    """Return the eigenvalues of symmetric ``matrix [..., units, units]``, largest first, none below zero."""
    return torch.linalg.eigvalsh(matrix).flip(-1).clamp(min=0)


def processes() -> int:
    """Return how many processes of ``torch.distributed`` share the work: 1 if it is not in use."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
