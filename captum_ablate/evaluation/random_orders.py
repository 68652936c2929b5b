"""Random orders of the units, which every ranking is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from captum_ablate.evaluation.areas import deficit_areas

QUANTILES = (0.05, 0.5, 0.95)
"""Low end, middle and high end of the band of random orders in a picture."""


@dataclass(frozen=True, eq=False)
class RandomOrders:
    """Random orders of the units: mean curves ``[orders, steps+1]`` and areas ``[orders, n]``, in both directions."""

    score: Tensor
    ascending_score: Tensor
    areas: Tensor
    ascending_areas: Tensor

    @classmethod
    def of(cls, descending: Sequence[Tensor], ascending: Sequence[Tensor], fraction: Tensor, n: int) -> RandomOrders:
        """Return the orders of these curves ``[steps+1, n]`` in both directions, at ``fraction [steps+1]``."""

        def joined(curves: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
            if not curves:
                return torch.zeros(0, len(fraction), dtype=torch.float64), torch.zeros(0, n, dtype=torch.float64)
            return torch.stack([c.mean(dim=1) for c in curves]), torch.stack(
                [deficit_areas(c, fraction) for c in curves]
            )

        (score, areas), (ascending_score, ascending_areas) = joined(descending), joined(ascending)
        return cls(score, ascending_score, areas, ascending_areas)

    def __len__(self) -> int:
        """Return the number of orders."""
        return len(self.score)

    @property
    def deletion(self) -> Tensor:
        """Mean D_i of each order, ``[orders]``."""
        return self.areas.mean(dim=1)

    @property
    def insertion(self) -> Tensor:
        """Minus the mean D_i of each reversed order, ``[orders]``."""
        return -self.ascending_areas.mean(dim=1)

    @property
    def gap(self) -> Tensor:
        """Deletion plus insertion of each order, ``[orders]``: 0 in expectation."""
        return self.deletion + self.insertion

    @property
    def gap_areas(self) -> Tensor:
        """Contribution of each sample to the gap of each order, ``[orders, n]``."""
        return self.areas - self.ascending_areas

    @property
    def quantiles(self) -> Tensor:
        """The 5 %, 50 % and 95 % of the mean curves at each step, reverses counted in: ``[3, steps+1]``.

        A reversed random order is a random order, so one band serves both directions. ``[0, steps+1]`` of no order.
        """
        both = torch.cat([self.score, self.ascending_score])
        return torch.quantile(both, both.new_tensor(QUANTILES), dim=0) if len(both) else both

    def to_frame(self, fraction: Tensor) -> pd.DataFrame:
        """Return one row per order, direction and step: order, direction, fraction, score."""
        directions = {"descending": self.score, "ascending": self.ascending_score}
        rows = [
            pd.DataFrame({"order": k, "direction": direction, "fraction": fraction.numpy(), "score": curve.numpy()})
            for direction, curves in directions.items()
            for k, curve in enumerate(curves)
        ]
        columns = ["order", "direction", "fraction", "score"]
        return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)
