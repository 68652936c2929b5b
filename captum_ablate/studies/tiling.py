"""Units as points in a plane, cut into tiles: which units lie near each other."""

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

from captum_ablate.evaluation.labels import headed, name_labels
from captum_ablate.inputs.values import tensor_of, whole_number
from captum_ablate.inputs.wording import counted
from captum_ablate.studies.heat_map import draw_tiles

Edges = Literal["width", "quantile"]

PLANE = ("selectivity", "mean activity")
"""Names of the default axes; which plane the paper tiles is not known to us."""


class Group(NamedTuple):
    """The units of one tile: ``column`` counts along x and ``row`` along y, from the low end; ``units [k]``."""

    column: int
    row: int
    units: Tensor


@dataclass(frozen=True, eq=False)
class Tiling:
    """Units as points in a plane, ``x [units]`` and ``y [units]``, cut into tiles; the units of a tile are a group.

    The options are those of ``AblationGrid``, which ablates the groups.

    Example:
        >>> from captum_ablate.studies.tiling import Tiling
        >>> tiling = Tiling([0.1, 0.2, 0.9, 0.8], [1.0, 1.1, 5.0, 4.0], tiles=2, min_units=2)
        >>> [group.units.tolist() for group in tiling.groups]
        [[0, 1], [2, 3]]
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
            object.__setattr__(self, name, whole_number(getattr(self, name), name, 1))
        if self.edges not in ("width", "quantile"):
            raise ValueError(f'edges must be "width" or "quantile"; got {self.edges!r}')
        if not bool(self.inside.any()):
            raise ValueError("no unit has two finite coordinates, so there is nothing to tile")

    @property
    def inside(self) -> Tensor:
        """Units that lie in the plane, bool ``[units]``."""
        return ~(self.x.isnan() | self.y.isnan())

    @cached_property
    def x_edges(self) -> Tensor:
        """Edges of the columns, ``[tiles + 1]``, ascending."""
        return tile_edges(self.x[self.inside], self.tiles, self.edges)

    @cached_property
    def y_edges(self) -> Tensor:
        """Edges of the rows, ``[tiles + 1]``, ascending."""
        return tile_edges(self.y[self.inside], self.tiles, self.edges)

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

    @property
    def _column(self) -> Tensor:
        return tile_of(self.x, self.x_edges)

    @property
    def _row(self) -> Tensor:
        return tile_of(self.y, self.y_edges)

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
        ax.set(**dict(zip(("xlabel", "ylabel"), name_labels(self.axes, line=60), strict=True)))
        headed(ax, f"{counted(int(self.inside.sum()), 'unit')}, {counted(len(self.groups), 'group')}")
        return ax

    def to_frame(self) -> pd.DataFrame:
        """Return one row per unit: unit, x, y, column, row, group (-1 where it is in none)."""
        group = torch.full((len(self.x),), -1)
        for number, one in enumerate(self.groups):
            group[one.units] = number
        place = {"column": self._column, "row": self._row}
        return pd.DataFrame(
            {
                "unit": np.arange(len(self.x)),
                "x": self.x.numpy(),
                "y": self.y.numpy(),
                **{name: torch.where(self.inside, tile, -1).numpy() for name, tile in place.items()},
                "group": group.numpy(),
            }
        )


def tile_edges(values: Tensor, tiles: int, edges: Edges) -> Tensor:
    """Return the edges of ``tiles`` tiles along one axis for ``values [units]``, ``[tiles + 1]``, ascending."""
    steps = torch.linspace(0, 1, tiles + 1, dtype=torch.float64)
    if edges == "quantile":
        return torch.from_numpy(np.quantile(values.numpy(), steps.numpy()))
    low, high = values.min(), values.max()
    return low + (high - low) * steps


def tile_of(values: Tensor, edges: Tensor) -> Tensor:
    """Return the tile of each value, ``[units]``: the number of inner edges at or below it."""
    return torch.bucketize(values.contiguous(), edges[1:-1].contiguous(), right=True)


def _coordinates(values: Any, name: str) -> Tensor:
    """Return ``values`` as finite float64 ``[units]`` on the CPU, or NaN where a unit has no place."""
    found = tensor_of(values).cpu().to(torch.float64)
    if found.ndim != 1 or not len(found):
        raise ValueError(f"{name} must have one value for each unit, [units]; got shape {tuple(found.shape)}")
    if bool(found.isinf().any()):
        raise ValueError(f"{name} must be finite, or NaN for a unit outside the plane; got an infinite value")
    return found
