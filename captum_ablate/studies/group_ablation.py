"""Groups of a tiled plane ablated one by one, against random groups of the same size, class by class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_ablate.ablation import Chain, Engine, Measured, Plan, learn, locate, reference_name
from captum_ablate.ablation.metrics import as_metric, metric_name
from captum_ablate.evaluation.curve import Frozen
from captum_ablate.evaluation.evaluator import CumulativeAblationEvaluator
from captum_ablate.inputs.model import borrowed
from captum_ablate.inputs.progress import ticking
from captum_ablate.statistics.intervals import mean_interval, two_way_interval
from captum_ablate.studies.group_deficits import TABLES, GroupDeficits
from captum_ablate.studies.unit_coordinates import one_layer

if TYPE_CHECKING:  # the grid makes its own deficits
    from captum_ablate.studies.ablation_grid import AblationGrid


def ablate_groups(
    grid: AblationGrid, evaluator: CumulativeAblationEvaluator, data: Any, *, ranking_data: Any, n_random: int
) -> GroupDeficits:
    """Ablate each group of ``grid``, and ``n_random`` random groups of its size; see ``AblationGrid.deficits``."""
    if isinstance(n_random, bool) or not isinstance(n_random, int) or n_random < 1:
        raise ValueError(f"n_random must be an int of at least 1; got {n_random!r}")
    if not grid.groups:
        raise ValueError(f"no tile has {grid.min_units} units; take fewer tiles than {grid.tiles} or a lower min_units")
    forward_func, layer = evaluator.forward_func, one_layer(evaluator)
    batches = evaluator._batches(data)
    batches.refuse_one_shot("the grid looks at the layer first, then ablates")
    learned_from = batches if ranking_data is None else evaluator._batches(ranking_data)
    plan = group_plan(grid, n_random, evaluator.seed)
    owner = () if isinstance(forward_func, nn.Module) else (layer,)
    with borrowed(forward_func, *owner, batches.owner, learned_from.owner):
        located = locate(forward_func, [layer], [evaluator.axis], batches)
        (site,) = located.sites
        if located.units != len(grid.x):
            raise ValueError(
                f"the grid has {len(grid.x)} units, and {site.name!r} has {located.units}; make one for it"
            )
        reference = learn(evaluator.references[0], forward_func, site, learned_from, evaluator.seed)
        with ticking(f"ablating groups of {site.name}", evaluator.show_progress, batches.images) as tick:
            engine = Engine(forward_func, [site], [reference], as_metric(evaluator.metric), plan, tick)
            measured = engine.run(batches, located.seen)
    return GroupDeficits(
        grid=grid,
        **_by_class(grid, plan, measured, n_random),
        n_random=n_random,
        provenance=Frozen(
            {
                "layer": site.name,
                "reference": reference_name(evaluator.references[0]),
                "metric": metric_name(evaluator.metric),
                "seed": evaluator.seed,
                "engine": measured.engine,
            }
        ),
    )


def group_plan(grid: AblationGrid, n_random: int, seed: int) -> Plan:
    """Return the plan: every group, then every random order of the units in the plane at each size of a group."""
    sizes = tuple(sorted({len(group.units) for group in grid.groups}))
    stream = torch.Generator().manual_seed(seed)
    pool = grid.inside.nonzero().flatten()
    chains = [Chain(group.units, (len(group.units),)) for group in grid.groups]
    chains += [Chain(pool[torch.randperm(len(pool), generator=stream)], sizes) for _ in range(n_random)]
    return Plan.of(chains, len(grid.x))


def _by_class(grid: AblationGrid, plan: Plan, measured: Measured, n_random: int) -> dict[str, Tensor]:
    """Return ``classes``, ``n`` and ``intact``, each ``[classes]``, and the tables, ``[classes, groups]``."""
    losses = (measured.intact - measured.values).to(torch.float64)  # [masks, n]
    sizes = plan.chains[-1].counts
    random_rows = torch.tensor(plan.rows[-n_random:])  # [orders, sizes]
    classes, index = torch.unique(measured.target, return_inverse=True)
    tables = {name: torch.empty(len(classes), len(grid.groups), dtype=torch.float64) for name in TABLES}
    for g, group in enumerate(grid.groups):
        lost = losses[plan.rows[g][0]]  # [n]
        by_chance = losses[random_rows[:, sizes.index(len(group.units))]]  # [orders, n]
        for c in range(len(classes)):
            row = _against_chance(lost[index == c], by_chance[:, index == c])
            for table, value in zip(tables.values(), row, strict=True):
                table[c, g] = value
    intact = torch.stack([measured.intact[index == c].mean() for c in range(len(classes))])
    return {"classes": classes, "n": torch.bincount(index), "intact": intact.to(torch.float64), **tables}


def _against_chance(own: Tensor, others: Tensor) -> tuple[float, ...]:
    """Return a value for each of ``TABLES``, from losses ``own [n]`` and random groups' ``others [orders, n]``."""
    over = own - others  # [orders, n]
    low, high = mean_interval(own.numpy())
    excess_low, excess_high = two_way_interval(over.T.numpy())
    spread = float(others.mean(dim=1).std()) if len(others) > 1 else np.nan
    deficit, random, excess = (float(values.mean()) for values in (own, others, over))
    return deficit, low, high, random, spread, excess, excess_low, excess_high
