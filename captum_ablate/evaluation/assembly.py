"""From what the engine measured to curves and their comparison: areas, random orders, intervals, p."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_ablate.ablation import Measured, Plan
from captum_ablate.evaluation.comparison import Comparison, RandomOrders
from captum_ablate.evaluation.curve import DeficitCurve, Frozen, deficit_areas
from captum_ablate.statistics.confidence_sequence import Sampled
from captum_ablate.statistics.intervals import Interval, exceedance_p, two_way_interval


def comparison_of(
    scores: Mapping[str, Tensor],
    failed: Mapping[str, str],
    plan: Plan,
    measured: Measured,
    provenance: Frozen[Any],
    sampled: Sampled | None,
) -> Comparison:
    """Return the comparison of the methods with ``scores``, whose chains come first in ``plan``.

    Where the provenance says ``ascending``, every chain of the plan is followed by its reverse.
    """
    both = bool(provenance["ascending"])
    curves = curves_of(plan, measured)
    step = 2 if both else 1
    descending, ascending = curves[::step], curves[1::2] if both else []
    m = len(scores)
    n_ablated = torch.tensor([0, *plan.chains[0].counts])
    fraction = n_ablated.to(torch.float64) / plan.units
    orders = _random_orders(descending[m:], ascending[m:] if both else None, fraction, len(measured.intact))
    null = orders.areas if orders.ascending_areas is None else orders.areas - orders.ascending_areas
    result = {
        name: DeficitCurve(
            name=name,
            scores=values,
            order=plan.chains[k * step].order,
            n_ablated=n_ablated,
            values=descending[k],
            ascending_values=ascending[k] if both else None,
            target=measured.target,
            **_against_random(descending[k], ascending[k] if both else None, fraction, null, sampled),
            ties=len(values) - len(torch.unique(values)),
            provenance=provenance,
        )
        for k, (name, values) in enumerate(scores.items())
    }
    return Comparison(Frozen(result), Frozen(failed), orders, provenance)


def curves_of(plan: Plan, measured: Measured) -> list[Tensor]:
    """Return the metric along each chain of the plan, intact first, ``[steps+1, n]``."""
    intact = measured.intact.to(torch.float64)
    return [torch.cat([intact[None], measured.values[list(row)].to(torch.float64)]) for row in plan.rows]


def _random_orders(descending: list[Tensor], ascending: list[Tensor] | None, fraction: Tensor, n: int) -> RandomOrders:
    def joined(curves: list[Tensor]) -> tuple[Tensor, Tensor]:
        if not curves:
            return torch.zeros(0, len(fraction), dtype=torch.float64), torch.zeros(0, n, dtype=torch.float64)
        return torch.stack([c.mean(dim=1) for c in curves]), torch.stack([deficit_areas(c, fraction) for c in curves])

    score, areas = joined(descending)
    ascending_score, ascending_areas = joined(ascending) if ascending is not None else (None, None)
    return RandomOrders(score, ascending_score, areas, ascending_areas)


def _against_random(
    descending: Tensor, ascending: Tensor | None, fraction: Tensor, null: Tensor, sampled: Sampled | None
) -> dict[str, Any]:
    """Return the fields that hold a curve's headline against ``null [orders, n]``, that of the random orders.

    Where images were drawn for precision, the interval is the confidence sequence over images, for these orders, and
    there is no p.
    """
    if not len(null):
        return {"over_random": np.nan, "over_random_interval": Interval(np.nan, np.nan), "p": np.nan}
    areas = deficit_areas(descending, fraction)
    if ascending is not None:
        areas = areas - deficit_areas(ascending, fraction)
    over = (areas[:, None] - null.T).numpy()  # [n, orders]
    return {
        "over_random": float(over.mean()),
        "over_random_interval": two_way_interval(over) if sampled is None else sampled.interval(over.mean(axis=1), 2),
        "p": exceedance_p(float(areas.mean()), null.mean(dim=1).numpy()) if sampled is None else np.nan,
    }
