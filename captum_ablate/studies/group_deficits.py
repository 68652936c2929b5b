"""What a network loses on each class when a group of units is ablated: the tables, by group, and their heat map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from torch import Tensor

from captum_ablate.studies.heat_map import draw_tiles

if TYPE_CHECKING:  # the grid makes its own deficits
    from captum_ablate.studies.ablation_grid import AblationGrid

TABLES = ("deficit", "deficit_low", "deficit_high", "random", "random_sd", "excess", "excess_low", "excess_high")


@dataclass(frozen=True, eq=False)
class GroupDeficits:
    """What the network loses on each class when a group is ablated, against random groups of the same size.

    ``classes [classes]``, ``n [classes]`` samples and ``intact [classes]``, the mean metric before. The tables are
    ``[classes, groups]``: ``deficit`` with its 95 % interval over images, ``random`` (mean over the random groups of
    that size; ``random_sd`` between them) and ``excess`` = deficit - random, with its interval over images and random
    groups. Groups are those of ``grid.groups``.
    """

    grid: AblationGrid
    classes: Tensor
    n: Tensor
    intact: Tensor
    n_random: int
    deficit: Tensor
    deficit_low: Tensor
    deficit_high: Tensor
    random: Tensor
    random_sd: Tensor
    excess: Tensor
    excess_low: Tensor
    excess_high: Tensor
    provenance: Mapping[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per class and group; x and y are means over the group's units, named as the grid's axes."""
        groups = self.grid.groups
        x, y = (name.replace(" ", "_") for name in self.grid.axes)
        per_group = pd.DataFrame(
            {
                "group": range(len(groups)),
                "column": [g.column for g in groups],
                "row": [g.row for g in groups],
                "n_units": [len(g.units) for g in groups],
                x: [float(self.grid.x[g.units].mean()) for g in groups],
                y: [float(self.grid.y[g.units].mean()) for g in groups],
            }
        )
        parts = []
        for c, label in enumerate(self.classes.tolist()):
            measured = {name: getattr(self, name)[c].numpy() for name in TABLES}
            part = per_group.assign(n=int(self.n[c]), intact=float(self.intact[c]), **measured)
            part.insert(0, "class", label)
            parts.append(part)
        return pd.concat(parts, ignore_index=True)

    def plot(self, label: int | None = None, ax: Axes | None = None) -> Axes:
        """Draw the excess deficit over the plane, of class ``label`` or the mean over classes; return the axes."""
        if label is None:
            excess, of = self.excess.mean(dim=0), f"mean over {len(self.classes)} classes"
        else:
            found = (self.classes == label).nonzero().flatten()
            if not len(found):
                raise ValueError(f"there is no class {label}; the classes are {self.classes.tolist()}")
            excess, of = self.excess[found[0]], f"class {label}"
        if ax is None:
            _, ax = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
        tiles = self.grid.tiles
        values = np.full((tiles, tiles), np.nan)
        notes = [[""] * tiles for _ in range(tiles)]
        for group, value in zip(self.grid.groups, excess.tolist(), strict=True):
            values[group.column, group.row] = value
            notes[group.column][group.row] = f"{value:+.3f}\n{len(group.units)} units"
        metric = str(self.provenance["metric"]).replace("_", " ")
        draw_tiles(
            ax,
            self.grid.x_edges.numpy(),
            self.grid.y_edges.numpy(),
            values,
            notes=notes,
            label=f"{metric} lost beyond random groups",
            diverging=True,
        )
        ax.set(xlabel=self.grid.axes[0], ylabel=self.grid.axes[1])
        title = f"{self.provenance['layer']}: deficit of each group beyond chance"
        ax.set_title(f"{title}\n", loc="left", fontweight="bold", fontsize="medium")
        ax.annotate(of, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize="small")
        return ax
