"""A plane of its own for each class: how selective for it, how active in it, and what ablation costs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from captum_ablate.evaluation.evaluator import CumulativeAblationEvaluator
from captum_ablate.inputs.batches import Batch, as_batches
from captum_ablate.studies.ablation_grid import AblationGrid, Edges
from captum_ablate.studies.group_deficits import GroupDeficits
from captum_ablate.studies.heat_map import draw_tiles
from captum_ablate.studies.unit_coordinates import unit_coordinates


def class_planes(
    evaluator: CumulativeAblationEvaluator,
    ranking_data: Any,
    *,
    tiles: int = 5,
    edges: Edges = "width",
    min_units: int = 3,
) -> dict[int, AblationGrid]:
    """Return for each class the grid of its units' selectivity for the class against their mean activity in it.

    Selectivity is :math:`(\\mu_{cu} - \\mu_{rest}) / (|\\mu_{cu}| + |\\mu_{rest}| + \\varepsilon)`, between -1 and 1,
    activity :math:`\\mu_{cu}`. Dead units lie in no tile. Our reading of Hayne et al. (2022, arXiv 2211.04367).
    """
    found = unit_coordinates(evaluator, ranking_data)
    return {
        label: AblationGrid(
            found.alive(found.selectivity_per_class[c]),
            found.alive(found.activity_per_class[c]),
            tiles=tiles,
            edges=edges,
            min_units=min_units,
        )
        for c, label in enumerate(found.classes.tolist())
    }


def class_deficits(
    planes: Mapping[int, AblationGrid],
    evaluator: CumulativeAblationEvaluator,
    data: Any,
    *,
    ranking_data: Any = None,
    n_random: int = 20,
) -> ClassDeficits:
    """Ablate the groups of each class's plane, on the samples of that class alone; see ``AblationGrid.deficits``.

    A class without a sample in ``data``, or whose plane has no group, is left out.
    """
    batches = evaluator._batches(data)
    batches.refuse_one_shot("each class takes passes of its own")
    present = set(torch.unique(torch.cat([batch.target.cpu() for batch in batches])).tolist())
    done = [
        plane.deficits(
            evaluator,
            as_batches(_OfClass(batches, label), unpack_batch=_as_it_is, forward_func=evaluator.forward_func),
            ranking_data=batches if ranking_data is None else ranking_data,
            n_random=n_random,
        )
        for label, plane in planes.items()
        if label in present and plane.groups
    ]
    if not done:
        raise ValueError(
            f"no class has both samples and groups; planes for {sorted(planes)}, data of {sorted(present)}"
        )
    return ClassDeficits(tuple(done))


@dataclass(frozen=True, eq=False)
class ClassDeficits:
    """The deficits of each class in its own plane, one ``GroupDeficits`` (of one class) a class."""

    parts: tuple[GroupDeficits, ...]

    @property
    def by_class(self) -> dict[int, GroupDeficits]:
        """The deficits by label."""
        return {int(one.classes[0]): one for one in self.parts}

    def to_frame(self) -> pd.DataFrame:
        """Return one row per class and group of its plane, as ``GroupDeficits.to_frame``."""
        return pd.concat([one.to_frame() for one in self.parts], ignore_index=True)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the excess deficit by tile, the mean over the classes that have units there; return the axes."""
        if ax is None:
            _, ax = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
        first = self.parts[0]
        tiles = first.grid.tiles
        frame = self.to_frame()
        values = np.full((tiles, tiles), np.nan)
        notes = [[""] * tiles for _ in range(tiles)]
        for column, row in np.ndindex(tiles, tiles):
            here = frame[(frame["column"] == column) & (frame["row"] == row)]
            if len(here):
                values[column, row] = here["excess"].mean()
                notes[column][row] = f"{values[column, row]:+.3f}\n{here['n_units'].mean():.0f} units"
        steps = np.arange(tiles + 1, dtype=np.float64) + 0.5
        metric = str(first.provenance["metric"]).replace("_", " ")
        draw_tiles(ax, steps, steps, values, notes=notes, label=f"{metric} lost beyond random groups", diverging=True)
        x, y = first.grid.axes
        kind = "width" if first.grid.edges == "width" else "number of units"
        ax.set(xlabel=f"{x} for the class (tiles of equal {kind}, low to high)", ylabel=f"{y} in the class (tiles)")
        ax.set_xticks(range(1, tiles + 1))
        ax.set_yticks(range(1, tiles + 1))
        ax.set_title(f"{first.provenance['layer']}: deficit of each group beyond chance\n", loc="left",
                     fontweight="bold", fontsize="medium")  # fmt: skip
        ax.annotate(
            f"mean over {len(self.parts)} classes, each in its own plane and on its own images",
            (0, 1),
            (0, 6),
            xycoords="axes fraction",
            textcoords="offset points",
            fontsize="small",
        )
        return ax


@dataclass(frozen=True)
class _OfClass:
    """The samples of one class, batch by batch, as often as asked."""

    batches: Any
    label: int

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            own = batch.target == self.label
            if bool(own.any()):
                yield batch.take(own)


def _as_it_is(batch: Batch) -> Batch:
    return batch
