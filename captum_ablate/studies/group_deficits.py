"""Deficits of groups of units, class by class, against random groups of the same size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from captum_ablate.ablation import Chain, Engine, Measured, Plan, learn, locate, reference_name
from captum_ablate.ablation.metrics import as_metric, bounds_of, metric_name
from captum_ablate.evaluation.evaluator import CumulativeAblationEvaluator
from captum_ablate.evaluation.labels import name_labels
from captum_ablate.inputs.batches import UnpackBatch, as_batches
from captum_ablate.inputs.borrowed import borrowed
from captum_ablate.inputs.progress import ticking
from captum_ablate.inputs.values import whole_number
from captum_ablate.inputs.wording import counted
from captum_ablate.statistics.intervals import bounded_interval, mean_interval, two_way_interval
from captum_ablate.studies.heat_map import draw_excess
from captum_ablate.studies.tiling import Tiling
from captum_ablate.studies.unit_coordinates import one_layer

TABLES = ("deficit", "deficit_low", "deficit_high", "random", "random_sd", "excess", "excess_low", "excess_high")


@dataclass(frozen=True, eq=False)
class GroupDeficits:
    """Loss of the network on each class when a group is ablated, against random groups of the same size.

    ``classes [classes]``, ``n [classes]`` samples and ``intact [classes]``, the mean metric before. The tables are
    ``[classes, groups]``, in units of the metric: ``deficit`` with its 95 % interval over samples, ``random`` (mean
    over the random groups of that size; ``random_sd`` between them) and ``excess`` = deficit - random, with its
    interval over samples and random groups. Groups are those of ``grid.groups``. ``engine`` says how the outputs were
    computed.
    """

    grid: Tiling
    classes: Tensor
    n: Tensor
    intact: Tensor
    deficit: Tensor
    deficit_low: Tensor
    deficit_high: Tensor
    random: Tensor
    random_sd: Tensor
    excess: Tensor
    excess_low: Tensor
    excess_high: Tensor
    n_random: int
    layer: str
    reference: str
    metric: str
    seed: int
    engine: str

    @classmethod
    def of(
        cls,
        grid: Tiling,
        evaluator: CumulativeAblationEvaluator,
        data: Any,
        *,
        ranking_data: Any = None,
        n_random: int = 20,
        batch_size: int | None = None,
        unpack_batch: UnpackBatch | None = None,
        show_progress: bool = False,
    ) -> GroupDeficits:
        """Ablate each group of ``grid``, and random groups of its size, and compare what the network loses.

        Model, layer, reference, metric and seed are the evaluator's.

        Args:
            grid: where the evaluator's units lie.
            evaluator: says what is ablated, and how.
            data: ``(inputs, target)``, or an iterable of batches ``(*inputs, labels)``; not a one-shot generator.
            ranking_data: what a mean or resampled reference learns from; without it, ``data``.
            n_random: random orders of the units in the plane; their starts are the random groups.
            batch_size: samples at a time where data are tensors.
            unpack_batch: turns a batch of another form into ``Batch(inputs, target)``.
            show_progress: show a progress bar.

        Raises:
            ValueError: if the grid has no group or the units of another layer, or the evaluator has several layers.

        Example:
            >>> import torch
            >>> from captum_ablate import AblationGrid, CumulativeAblationEvaluator
            >>> layers = torch.nn.Linear(8, 20), torch.nn.ReLU(), torch.nn.Linear(20, 2)
            >>> model = torch.nn.Sequential(*layers).eval()
            >>> data = torch.randn(60, 8), torch.arange(60) % 2
            >>> evaluator = CumulativeAblationEvaluator(model, "1", metric="logit")
            >>> grid = AblationGrid.of(evaluator, data, tiles=2, min_units=1)
            >>> found = grid.deficits(evaluator, data, n_random=3)
            >>> found.excess.shape == (2, len(grid.groups))
            True
        """
        _check(grid, n_random)
        model, layer, seed = evaluator.forward_func, one_layer(evaluator), evaluator.seed
        batches, learned_from = (
            as_batches(one, forward_func=model, batch_size=batch_size, unpack_batch=unpack_batch)
            for one in (data, data if ranking_data is None else ranking_data)
        )
        batches.refuse_one_shot("the grid looks at the layer first, then ablates")
        groups, pool = [group.units for group in grid.groups], grid.inside.nonzero().flatten()
        plan = group_plan(groups, pool, len(grid.x), n_random=n_random, seed=seed)
        owner = () if isinstance(model, nn.Module) else (layer,)
        with borrowed(model, *owner, batches.owner, learned_from.owner):
            at_input = evaluator.attribute_to_layer_input
            located = locate(model, [layer], [evaluator.axes[0]], batches, at_input=at_input)
            (site,) = located.sites
            if located.units != len(grid.x):
                raise ValueError(
                    f"the grid has {len(grid.x)} units, and {site.label!r} has {located.units}; make one for it"
                )
            reference = learn(evaluator.references[0], model, site, learned_from, seed)
            with ticking(f"ablating groups of {site.label}", show_progress, batches.samples) as tick:
                engine = Engine(model, [site], [reference], as_metric(evaluator.metric), plan, tick)
                measured = engine.run(batches, located.seen)
        return cls(
            grid=grid,
            **tables_by_class(plan, measured, n_random, bounds_of(evaluator.metric)),
            n_random=n_random,
            layer=site.label,
            reference=reference_name(evaluator.references[0]),
            metric=metric_name(evaluator.metric),
            seed=seed,
            engine=measured.engine,
        )

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
        """Draw the excess deficit over the plane, of class ``label`` or the mean over classes; return the axes.

        Raises:
            ValueError: if there is no class ``label``.
        """
        if label is None:
            excess, whose = self.excess.mean(dim=0), f"mean over {counted(len(self.classes), 'class', 'classes')}"
        else:
            found = (self.classes == label).nonzero().flatten()
            if not len(found):
                raise ValueError(f"there is no class {label}; the classes are {self.classes.tolist()}")
            excess, whose = self.excess[found[0]], f"class {label}"
        if ax is None:
            _, ax = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
        grid = self.grid
        ax.set(**dict(zip(("xlabel", "ylabel"), name_labels(grid.axes, line=60), strict=True)))
        tiles = {
            (group.column, group.row): (value, len(group.units))
            for group, value in zip(grid.groups, excess.tolist(), strict=True)
        }
        edges = grid.x_edges.numpy(), grid.y_edges.numpy()
        draw_excess(ax, *edges, tiles, layer=self.layer, metric=self.metric, subtitle=whose)
        return ax


def group_plan(groups: Sequence[Tensor], pool: Tensor, units: int, *, n_random: int, seed: int) -> Plan:
    """Return the plan: every group, then every random order of ``pool [k]`` at each size of a group.

    ``groups`` are indices of units, ``pool`` those that random groups are drawn from, ``units`` how many the layer has.
    """
    sizes = tuple(sorted({len(group) for group in groups}))
    stream = torch.Generator().manual_seed(seed)
    chains = [Chain(group, (len(group),)) for group in groups]
    chains += [Chain(pool[torch.randperm(len(pool), generator=stream)], sizes) for _ in range(n_random)]
    return Plan.of(chains, units)


def tables_by_class(
    plan: Plan, measured: Measured, n_random: int, bounds: tuple[float, float] | None
) -> dict[str, Tensor]:
    """Return ``classes``, ``n`` and ``intact``, each ``[classes]``, and ``TABLES``, each ``[classes, groups]``.

    ``bounds`` are those of the metric, if it has any.
    """
    span = None if bounds is None else bounds[1] - bounds[0]
    losses = (measured.intact - measured.values).to(torch.float64)  # [masks, n]
    groups, sizes = plan.chains[:-n_random], plan.chains[-1].counts
    random_rows = torch.tensor(plan.rows[-n_random:])  # [orders, sizes]
    classes, index = torch.unique(measured.target, return_inverse=True)
    tables = {name: torch.empty(len(classes), len(groups), dtype=torch.float64) for name in TABLES}
    for g, group in enumerate(groups):
        lost = losses[plan.rows[g][0]]  # [n]
        by_chance = losses[random_rows[:, sizes.index(group.counts[0])]]  # [orders, n]
        for c in range(len(classes)):
            row = _against_chance(lost[index == c], by_chance[:, index == c], span)
            for table, value in zip(tables.values(), row, strict=True):
                table[c, g] = value
    intact = torch.stack([measured.intact[index == c].mean() for c in range(len(classes))])
    return {"classes": classes, "n": torch.bincount(index), "intact": intact.to(torch.float64), **tables}


def _check(grid: Tiling, n_random: int) -> None:
    """Raise where there is nothing to ablate, or nothing to compare with."""
    whole_number(n_random, "n_random", 1)
    if not grid.groups:
        raise ValueError(f"no tile has {grid.min_units} units; take fewer tiles than {grid.tiles} or a lower min_units")


def _against_chance(own: Tensor, others: Tensor, span: float | None) -> tuple[float, ...]:
    """Return a value for each of ``TABLES``, from losses ``own [n]`` and random groups' ``others [orders, n]``."""
    over = own - others  # [orders, n]
    losses = own.numpy()
    low, high = mean_interval(losses) if span is None else bounded_interval(losses, span)
    excess_low, excess_high = two_way_interval(over.T.numpy())
    spread = float(others.mean(dim=1).std()) if len(others) > 1 else np.nan
    deficit, random, excess = (float(values.mean()) for values in (own, others, over))
    return deficit, low, high, random, spread, excess, excess_low, excess_high
