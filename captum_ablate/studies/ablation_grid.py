"""Units as points in a plane, tiled into groups that lie near each other, to be ablated together."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor

from captum_ablate.evaluation.evaluator import CumulativeAblationEvaluator
from captum_ablate.studies.group_ablation import ablate_groups
from captum_ablate.studies.group_deficits import GroupDeficits
from captum_ablate.studies.heat_map import draw_tiles
from captum_ablate.studies.unit_coordinates import unit_coordinates

Edges = Literal["width", "quantile"]

PLANE = ("selectivity", "mean activity")
"""Names of the default axes; which plane the paper tiles is not known to us."""


class Group(NamedTuple):
    """The units of one tile: ``column`` counts along x and ``row`` along y, from the low end; ``units [k]``."""

    column: int
    row: int
    units: Tensor


@dataclass(frozen=True, eq=False)
class AblationGrid:
    """Units as points in a plane, tiled; the units of a tile are ablated together.

    Implements the idea of Hayne et al. (2022, arXiv 2211.04367): "systematically ablate groups of units in subregions
    of activation space". The plane (selectivity against mean activity), the tiles and the controls are our reading:
    the abstract, which is all that we have, names none of them.

    Args:
        x: coordinate of each unit, ``[units]``; a unit with a NaN lies in no tile (a dead unit, say).
        y: the other coordinate, ``[units]``.
        tiles: tiles along each axis, so that there are at most ``tiles ** 2`` groups.
        edges: "width", tiles of equal width between the extremes; or "quantile", of about equally many units along each
            axis.
        min_units: tiles with fewer units are skipped.
        axes: what x and y are, for tables and plots.
    """

    x: Tensor
    y: Tensor
    tiles: int = field(default=5, kw_only=True)
    edges: Edges = field(default="width", kw_only=True)
    min_units: int = field(default=3, kw_only=True)
    axes: tuple[str, str] = field(default=PLANE, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            object.__setattr__(self, name, _coordinates(getattr(self, name), name))
        if len(self.x) != len(self.y):
            raise ValueError(f"x and y must have one value for each unit; got {len(self.x)} and {len(self.y)}")
        for name in ("tiles", "min_units"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} must be an int of at least 1; got {value!r}")
        if self.edges not in ("width", "quantile"):
            raise ValueError(f'edges must be "width" or "quantile"; got {self.edges!r}')
        if not bool(self.inside.any()):
            raise ValueError("no unit has two finite coordinates, so there is nothing to tile")

    @classmethod
    def of(
        cls,
        evaluator: CumulativeAblationEvaluator,
        ranking_data: Any,
        *,
        tiles: int = 5,
        edges: Edges = "width",
        min_units: int = 3,
    ) -> AblationGrid:
        """Return the grid of class selectivity against mean activity of the evaluator's layer on ``ranking_data``.

        Dead units, whose mean is 0 in every class, lie in no tile.
        """
        found = unit_coordinates(evaluator, ranking_data)
        options: dict[str, Any] = {"tiles": tiles, "edges": edges, "min_units": min_units}
        return cls(found.alive(found.selectivity), found.alive(found.activity), **options)

    @property
    def inside(self) -> Tensor:
        """Which units lie in the plane, ``[units]`` bool."""
        return ~(self.x.isnan() | self.y.isnan())

    @cached_property
    def x_edges(self) -> Tensor:
        """Edges of the columns, ``[tiles + 1]``, ascending."""
        return self._edges(self.x)

    @cached_property
    def y_edges(self) -> Tensor:
        """Edges of the rows, ``[tiles + 1]``, ascending."""
        return self._edges(self.y)

    @cached_property
    def counts(self) -> Tensor:
        """Units in each tile, ``[columns, rows]``, also where there are too few for a group."""
        tile = self._column * self.tiles + self._row
        return torch.bincount(tile[self.inside], minlength=self.tiles**2).reshape(self.tiles, self.tiles)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The tiles with at least ``min_units`` units, column by column."""
        found = []
        for column, row in np.ndindex(self.tiles, self.tiles):
            units = ((self._column == column) & (self._row == row) & self.inside).nonzero().flatten()
            if len(units) >= self.min_units:
                found.append(Group(column, row, units))
        return tuple(found)

    def deficits(
        self, evaluator: CumulativeAblationEvaluator, data: Any, *, ranking_data: Any = None, n_random: int = 20
    ) -> GroupDeficits:
        """Ablate each group, and random groups of its size, and return what the network loses, class by class.

        Model, layer, reference, metric, seed and batches are the evaluator's. The random groups are the starts of
        ``n_random`` random orders of the units in the plane. ``ranking_data`` is what a mean or resampled reference
        learns from; without it, ``data``.
        """
        return ablate_groups(self, evaluator, data, ranking_data=ranking_data, n_random=n_random)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the units in the plane with the tiles and their counts; return the axes."""
        if ax is None:
            _, ax = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
        draw_tiles(
            ax,
            self.x_edges.numpy(),
            self.y_edges.numpy(),
            self.counts.numpy().astype(float),
            notes=[[""] * self.tiles] * self.tiles,
            label="units in the tile",
            diverging=False,
        )
        ax.plot(self.x, self.y, ".", color="#202020", markersize=3, alpha=0.6)
        ax.set(xlabel=self.axes[0], ylabel=self.axes[1])
        ax.set_title(f"{int(self.inside.sum()):,} units, {len(self.groups)} groups", loc="left", fontweight="bold")
        return ax

    def to_frame(self) -> pd.DataFrame:
        """Return one row per unit: unit, x, y, column, row, group (-1 where it is in none)."""
        group = torch.full((len(self.x),), -1)
        for number, one in enumerate(self.groups):
            group[one.units] = number
        inside = self.inside.numpy()
        return pd.DataFrame(
            {
                "unit": np.arange(len(self.x)),
                "x": self.x.numpy(),
                "y": self.y.numpy(),
                "column": np.where(inside, self._column.numpy(), -1),
                "row": np.where(inside, self._row.numpy(), -1),
                "group": group.numpy(),
            }
        )

    @property
    def _column(self) -> Tensor:
        return _tile(self.x, self.x_edges)

    @property
    def _row(self) -> Tensor:
        return _tile(self.y, self.y_edges)

    def _edges(self, values: Tensor) -> Tensor:
        values = values[self.inside]
        steps = torch.linspace(0, 1, self.tiles + 1, dtype=torch.float64)
        if self.edges == "quantile":
            return torch.from_numpy(np.quantile(values.numpy(), steps.numpy()))
        low, high = values.min(), values.max()
        return low + (high - low) * steps


def _coordinates(values: Any, name: str) -> Tensor:
    found = torch.as_tensor(values).detach().cpu().to(torch.float64)
    if found.ndim != 1 or not len(found):
        raise ValueError(f"{name} must have one value for each unit, [units]; got shape {tuple(found.shape)}")
    if bool(found.isinf().any()):
        raise ValueError(f"{name} must be finite, or NaN for a unit outside the plane; got an infinite value")
    return found


def _tile(values: Tensor, edges: Tensor) -> Tensor:
    """Return the tile of each value: how many of the inner edges are at or below it."""
    return torch.bucketize(values.contiguous(), edges[1:-1].contiguous(), right=True)
