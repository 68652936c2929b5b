"""Where in the plane do units matter: groups that lie near each other, over all classes and in each class's own plane.

Both are our reading of Hayne et al. (2022, arXiv 2211.04367).
"""

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
from captum_ablate.evaluation.labels import name_labels
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.batches import Batches, UnpackBatch, as_batches
from captum_ablate.inputs.wording import counted
from captum_ablate.studies.group_deficits import GroupDeficits
from captum_ablate.studies.heat_map import draw_excess
from captum_ablate.studies.tiling import Edges, Tiling
from captum_ablate.studies.unit_coordinates import UnitCoordinates


@dataclass(frozen=True, eq=False)
class AblationGrid(Tiling):
    """Units as points in a plane, tiled; the units of a tile are ablated together.

    Implements the idea of Hayne et al. (2022, arXiv 2211.04367): "systematically ablate groups of units in subregions
    of activation space". The plane (selectivity against mean activity), the tiles and the controls are our reading.
    The abstract, which is all that we have, names none of them.

    Args:
        x: coordinate of each unit, ``[units]``; a unit with a NaN lies in no tile (a dead unit, say).
        y: the other coordinate, ``[units]``.
        tiles: tiles along each axis, so that there are at most ``tiles ** 2`` groups.
        edges: "width", tiles of equal width between the extremes; or "quantile", of about equally many units along each
            axis.
        min_units: tiles with fewer units are skipped.
        axes: what x and y are, for tables and plots.

    Raises:
        ValueError: if x and y differ in length, are infinite or leave no unit, or an option is out of its range.

    Example:
        >>> from captum_ablate import AblationGrid
        >>> grid = AblationGrid([0.1, 0.2, 0.9, 0.8], [1.0, 1.1, 5.0, 4.0], tiles=2, min_units=2)
        >>> [group.units.tolist() for group in grid.groups]
        [[0, 1], [2, 3]]
    """

    @classmethod
    def of(
        cls,
        evaluator: CumulativeAblationEvaluator,
        ranking_data: Any,
        *,
        tiles: int = 5,
        edges: Edges = "width",
        min_units: int = 3,
        batch_size: int | None = None,
        unpack_batch: UnpackBatch | None = None,
        show_progress: bool = False,
    ) -> AblationGrid:
        """Tile the plane of class selectivity and mean activity of the evaluator's units on ``ranking_data``.

        Dead units, whose mean is 0 in every class, lie in no tile.

        Raises:
            ValueError: if the evaluator has several layers, or the data hold one class only.
        """
        found = UnitCoordinates.of(
            evaluator, ranking_data, batch_size=batch_size, unpack_batch=unpack_batch, show_progress=show_progress
        )
        x, y = found.alive(found.selectivity), found.alive(found.activity)
        return cls(x, y, tiles=tiles, edges=edges, min_units=min_units)

    def deficits(
        self,
        evaluator: CumulativeAblationEvaluator,
        data: Any,
        *,
        ranking_data: Any = None,
        n_random: int = 20,
        batch_size: int | None = None,
        unpack_batch: UnpackBatch | None = None,
        show_progress: bool = False,
    ) -> GroupDeficits:
        """Ablate each group, and random groups of its size; arguments as in ``GroupDeficits.of``."""
        return GroupDeficits.of(
            self,
            evaluator,
            data,
            ranking_data=ranking_data,
            n_random=n_random,
            batch_size=batch_size,
            unpack_batch=unpack_batch,
            show_progress=show_progress,
        )


def class_planes(
    evaluator: CumulativeAblationEvaluator,
    ranking_data: Any,
    *,
    tiles: int = 5,
    edges: Edges = "width",
    min_units: int = 3,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    show_progress: bool = False,
) -> dict[int, AblationGrid]:
    r"""Tile a plane for each class: its units' selectivity for the class against their mean activity in it.

    Selectivity is :math:`(\mu_{cu} - \mu_{rest}) / (|\mu_{cu}| + |\mu_{rest}| + \varepsilon)`, between -1 and 1 for
    activations >= 0, activity :math:`\mu_{cu}`. Dead units lie in no tile. Return the grids by label.

    Raises:
        ValueError: if the evaluator has several layers, or the data hold one class only.
    """
    found = UnitCoordinates.of(
        evaluator, ranking_data, batch_size=batch_size, unpack_batch=unpack_batch, show_progress=show_progress
    )
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
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    show_progress: bool = False,
) -> ClassDeficits:
    """Ablate the groups of each class's plane, on the samples of that class alone; see ``GroupDeficits.of``.

    A class without a sample in ``data``, or whose plane has no group, is left out.

    Raises:
        ValueError: if no class is left, or the data are a one-shot generator.

    Example:
        >>> import torch
        >>> from captum_ablate import CumulativeAblationEvaluator, class_deficits, class_planes
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 20), torch.nn.ReLU(), torch.nn.Linear(20, 2)).eval()
        >>> data = torch.randn(60, 8), torch.arange(60) % 2
        >>> evaluator = CumulativeAblationEvaluator(model, "1", metric="logit")
        >>> planes = class_planes(evaluator, data, tiles=2, min_units=1)
        >>> sorted(class_deficits(planes, evaluator, data, n_random=2).by_class)
        [0, 1]
    """
    options: dict[str, Any] = {"batch_size": batch_size, "unpack_batch": unpack_batch}
    batches = as_batches(data, forward_func=evaluator.forward_func, **options)
    batches.refuse_one_shot("each class takes passes of its own")
    present = set(torch.unique(torch.cat([batch.target.cpu() for batch in batches])).tolist())
    done = [
        plane.deficits(
            evaluator,
            as_batches(_OfClass(batches, label), forward_func=evaluator.forward_func),
            ranking_data=batches if ranking_data is None else ranking_data,
            n_random=n_random,
            show_progress=show_progress,
            **options,
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
        grid, frame = first.grid, self.to_frame()
        tiles = {}
        for column, row in np.ndindex(grid.tiles, grid.tiles):
            here = frame[(frame["column"] == column) & (frame["row"] == row)]
            if len(here):
                tiles[column, row] = here["excess"].mean(), here["n_units"].mean()
        (x, y), kind = grid.axes, "width" if grid.edges == "width" else "number of units"
        x, y = name_labels((x, y), lines=2)
        ax.set(xlabel=f"{x} for the class (tiles of equal {kind}, low to high)", ylabel=f"{y} in the class (tiles)")
        edges = np.arange(grid.tiles + 1, dtype=np.float64) + 0.5
        whose = (
            f"mean over {counted(len(self.parts), 'class', 'classes')}, each in its own plane and on its own samples"
        )
        draw_excess(ax, edges, edges, tiles, layer=first.layer, metric=first.metric, subtitle=whose)
        ax.set_xticks(range(1, grid.tiles + 1))
        ax.set_yticks(range(1, grid.tiles + 1))
        return ax


@dataclass(frozen=True)
class _OfClass:
    """The samples of one class, batch by batch, as often as asked."""

    batches: Batches
    label: int

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            own = batch.target == self.label
            if bool(own.any()):
                yield batch.take(own)
