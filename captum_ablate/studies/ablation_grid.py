"""Groups of units that lie near each other in a plane, ablated together, against random groups of the same size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from captum_ablate.activations import layer_pass, pooled_pass
from captum_ablate.attr import LayerClassSelectivity, LayerMeanActivity
from captum_ablate.class_statistics import ClassMoments
from captum_ablate.curve import Frozen
from captum_ablate.data import Batches, as_batches, check_classes
from captum_ablate.evaluator import CumulativeAblationEvaluator
from captum_ablate.gathering import MomentsRequest, collect
from captum_ablate.intervals import mean_interval, two_way_interval
from captum_ablate.layers import layer_name, refuse_training_mode
from captum_ablate.metrics import metric_name
from captum_ablate.progress import ticking
from captum_ablate.replay import (
    Chain,
    Engine,
    Measured,
    Plan,
    Reference,
    Site,
    fit_of,
    plain_reference,
    probe_few,
    reference_name,
)
from captum_ablate.studies.heat_map import draw_tiles
from captum_ablate.unchanged import unchanged
from captum_ablate.warning import warn

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
        statistics = class_statistics_of(evaluator, ranking_data)
        options: dict[str, Any] = {"tiles": tiles, "edges": edges, "min_units": min_units}
        return cls(statistics.alive(statistics.selectivity), statistics.alive(statistics.activity), **options)

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
        if isinstance(n_random, bool) or not isinstance(n_random, int) or n_random < 1:
            raise ValueError(f"n_random must be an int of at least 1; got {n_random!r}")
        if not self.groups:
            raise ValueError(
                f"no tile has {self.min_units} units; take fewer tiles than {self.tiles} or a lower min_units"
            )
        _check_one_layer(evaluator)
        batches = _batches(evaluator, data)
        batches.refuse_one_shot("the grid looks at the layer first, then ablates")
        learned_from = batches if ranking_data is None else _batches(evaluator, ranking_data)
        plan = self._plan(n_random, evaluator.seed)
        owner = () if isinstance(evaluator.forward_func, nn.Module) else (evaluator.layers[0],)
        with unchanged(evaluator.forward_func, *owner, batches.owner, learned_from.owner):
            refuse_training_mode(evaluator.forward_func, *owner)
            site = Site(evaluator.layers[0], layer_name(evaluator.forward_func, evaluator.layers[0]), evaluator.axis)
            seen = probe_few(evaluator.forward_func, [site], next(iter(batches)))
            units = evaluator.axis.count(seen.shapes[0])
            if units != len(self.x):
                raise ValueError(f"the grid has {len(self.x)} units, and {site.name!r} has {units}; make one for it")
            reference = _reference(evaluator, learned_from)
            with ticking(f"ablating groups of {site.name}", evaluator.show_progress, batches.images) as tick:
                engine = Engine(evaluator.forward_func, [site], [reference], evaluator._metric, plan, tick)
                measured = engine.run(batches, seen)
        return self._summary(plan, measured, n_random, _setting(evaluator, site, measured))

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

    def _plan(self, n_random: int, seed: int) -> Plan:
        """Return the plan: every group, then every random order at each size of a group."""
        sizes = tuple(sorted({len(group.units) for group in self.groups}))
        stream = torch.Generator().manual_seed(seed)
        pool = self.inside.nonzero().flatten()
        chains = [Chain(group.units, (len(group.units),)) for group in self.groups]
        chains += [Chain(pool[torch.randperm(len(pool), generator=stream)], sizes) for _ in range(n_random)]
        return Plan.of(chains, len(self.x))

    def _summary(self, plan: Plan, measured: Measured, n_random: int, setting: Mapping[str, Any]) -> GroupDeficits:
        losses = (measured.intact - measured.values).to(torch.float64)  # [masks, n]
        sizes = plan.chains[-1].counts
        random_rows = torch.tensor(plan.rows[-n_random:])  # [orders, sizes]
        classes, index = torch.unique(measured.target, return_inverse=True)
        groups = len(self.groups)
        tables = {name: torch.empty(len(classes), groups, dtype=torch.float64) for name in _TABLES}
        for g, group in enumerate(self.groups):
            lost = losses[plan.rows[g][0]]  # [n]
            by_chance = losses[random_rows[:, sizes.index(len(group.units))]]  # [orders, n]
            for c in range(len(classes)):
                own, others = lost[index == c], by_chance[:, index == c]
                over = own - others  # [orders, n of the class]
                low, high = mean_interval(own.numpy())
                excess_low, excess_high = two_way_interval(over.T.numpy())
                spread = float(others.mean(dim=1).std()) if n_random > 1 else np.nan
                deficit, random, excess = (float(values.mean()) for values in (own, others, over))
                row = (deficit, low, high, random, spread, excess, excess_low, excess_high)
                for table, value in zip(tables.values(), row, strict=True):
                    table[c, g] = value
        intact = torch.stack([measured.intact[index == c].mean() for c in range(len(classes))])
        return GroupDeficits(
            grid=self,
            classes=classes,
            n=torch.bincount(index),
            intact=intact.to(torch.float64),
            n_random=n_random,
            provenance=Frozen(dict(setting)),
            **tables,
        )


_TABLES = ("deficit", "deficit_low", "deficit_high", "random", "random_sd", "excess", "excess_low", "excess_high")


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
            measured = {name: getattr(self, name)[c].numpy() for name in _TABLES}
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


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """``selectivity [units]`` and ``activity [units]`` of a layer, and the same per class, ``[classes, units]``."""

    classes: Tensor
    selectivity: Tensor
    activity: Tensor
    selectivity_per_class: Tensor
    activity_per_class: Tensor

    def alive(self, values: Tensor) -> Tensor:
        """Return ``values [units]`` with NaN for dead units, whose mean is 0 in every class."""
        return values.masked_fill((self.activity_per_class == 0).all(dim=0), torch.nan)


def class_statistics_of(evaluator: CumulativeAblationEvaluator, ranking_data: Any) -> LayerStatistics:
    """Return class selectivity and mean activity of the evaluator's layer, over all and per class, from one pass."""
    _check_one_layer(evaluator)
    batches = _batches(evaluator, ranking_data)
    forward_func, layer = evaluator.forward_func, evaluator.layers[0]
    with unchanged(forward_func, layer, batches.owner):
        refuse_training_mode(forward_func, layer)
        found = collect(lambda: pooled_pass(forward_func, [layer], batches, evaluator.axis), [MomentsRequest()])
    moments = found[0][MomentsRequest()]  # of a tuple output, the first tensor: the one that is ablated
    assert isinstance(moments, ClassMoments)
    check_classes(moments.classes)
    negative = (moments.means < 0).any(dim=0)
    if bool(negative.any()):
        warn(
            f"{int(negative.sum())} units have a negative mean activity in some class; selectivity is meant for "
            "outputs >= 0: name the layer after the activation function"
        )
    selectivity, activity = LayerClassSelectivity(forward_func, layer), LayerMeanActivity(forward_func, layer)
    return LayerStatistics(
        classes=moments.classes,
        selectivity=selectivity.score(moments),
        activity=activity.score(moments),
        selectivity_per_class=selectivity.score_per_class(moments),
        activity_per_class=activity.score_per_class(moments),
    )


def _check_one_layer(evaluator: CumulativeAblationEvaluator) -> None:
    if len(evaluator.layers) > 1:
        raise ValueError(
            f"a plane holds the units of one layer, and the evaluator has {len(evaluator.layers)}: activities of two "
            "layers have no common unit; make an evaluator for each"
        )


def _batches(evaluator: CumulativeAblationEvaluator, data: Any) -> Batches:
    return as_batches(
        data,
        forward_func=evaluator.forward_func,
        batch_size=evaluator.batch_size,
        unpack_batch=evaluator.unpack_batch,
    )


def _reference(evaluator: CumulativeAblationEvaluator, batches: Batches) -> Reference:
    fit = fit_of(evaluator.references[0], evaluator.axis, evaluator.seed)
    if fit is None:
        return plain_reference(evaluator.references[0])
    for _, (parts,) in layer_pass(evaluator.forward_func, [evaluator.layers[0]], batches, torch.clone):
        fit.add(parts[0])
    return fit.finish()


def _setting(evaluator: CumulativeAblationEvaluator, site: Site, measured: Measured) -> dict[str, Any]:
    return {
        "layer": site.name,
        "reference": reference_name(evaluator.references[0]),
        "metric": metric_name(evaluator.metric),
        "seed": evaluator.seed,
        "engine": measured.engine,
    }


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
