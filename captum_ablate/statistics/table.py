"""The table of pooled activations, for a statistic that needs all of them at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from captum_ablate.inputs.rounding import rounding
from captum_ablate.statistics.moments import Labels


@dataclass(frozen=True)
class ActivationTable:
    """Pooled activations: ``values [n, units]``, ``target [n]``, in the order of the data.

    ``stored`` are the values, whole or in parts one after the other, of any floating type.
    ``rounding`` is the spread, relative to the largest value, that a unit may have by rounding alone.
    """

    stored: Tensor | tuple[Tensor, ...]
    target: Tensor
    rounding: float = rounding(torch.float64)

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
