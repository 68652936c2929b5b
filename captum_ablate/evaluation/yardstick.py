"""The order by Shapley values as a yardstick: which share of its gap a method earns."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_ablate.ablation import Engine, Located, Plan, Reference, ReferenceOption, is_same_reference, reference_name
from captum_ablate.ablation.metrics import Metric, metric_name
from captum_ablate.attr import LayerShapleyValue
from captum_ablate.evaluation.areas import deficit_areas
from captum_ablate.evaluation.curve import DeficitCurve
from captum_ablate.evaluation.ranked_again import RankedAgain
from captum_ablate.inputs.batches import Batches
from captum_ablate.inputs.model import ForwardFunc, layer_name
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.inputs.wording import counted
from captum_ablate.statistics.intervals import NO_INTERVAL, Interval
from captum_ablate.statistics.ranking_noise import RankingNoise
from captum_ablate.statistics.ratio import fieller_interval

NAME = "Shapley value (yardstick)"
"""Name of the yardstick's row."""

RESAMPLES = 20
"""Resamples of the permutations, each with an order of its own, whose gaps tell the noise of the permutations."""


def check_yardstick(
    yardstick: Any,
    layers: Sequence[nn.Module],
    axes: Sequence[UnitAxis],
    references: Sequence[ReferenceOption],
    metric: str | Metric,
) -> None:
    """Raise unless ``yardstick`` is a ``LayerShapleyValue`` with the layers and settings of the evaluator.

    Raises:
        TypeError: if it is anything else.
        ValueError: if layers, units, reference or metric differ, or there is one permutation only.
    """
    if not isinstance(yardstick, LayerShapleyValue):
        got = yardstick.__name__ if isinstance(yardstick, type) else type(yardstick).__name__
        raise TypeError(f"yardstick must be a LayerShapleyValue(model, layer, reference=..., metric=...); got {got}")
    own = yardstick.layers
    if len(own) != len(layers) or any(a is not b for a, b in zip(own, layers, strict=True)):
        names = [layer_name(yardstick.forward_func, one) for one in own]
        raise ValueError(f"yardstick is of {names}, and the evaluator ablates others; give it the evaluator's layers")
    if any(yardstick.axis != axis for axis in axes):
        raise ValueError("yardstick has other units than the evaluator; give both the same unit_dim and layer_mask")
    same = all(is_same_reference(yardstick.reference, one) for one in references)
    if not same or yardstick.metric != metric:
        wanted = references[0] if len(references) == 1 else list(references)
        raise ValueError(
            f"yardstick must have the evaluator's reference and metric, or its gap is no measure of theirs: it has "
            f"reference={_named(yardstick.reference)}, metric={metric_name(yardstick.metric)!r}, and the evaluator "
            f"reference={_named(wanted)}, metric={metric_name(metric)!r}; give both the same"
        )
    if yardstick.permutations < 2:
        raise ValueError("yardstick needs two permutations or more, because its own noise is told by their spread")


def refuse_name(names: Iterable[str]) -> None:
    """Raise if a method has the name of the yardstick's row: one would pass for the other."""
    if NAME in names:
        raise ValueError(f"{NAME!r} is the name of the yardstick's row; give the method another one")


def refuse_until(until: float | None) -> None:
    """Raise if samples are drawn ``until`` a precision: a share has no confidence sequence."""
    if until is not None:
        raise ValueError(f"yardstick needs all samples, and until={until!r} draws some; leave out one of the two")


def _named(reference: Any) -> str:
    return str([*map(_named, reference)]) if isinstance(reference, list) else repr(reference_name(reference))


@dataclass(frozen=True)
class ShapleyRanking:
    """Shapley values ``scores [units]``, and those of resampled permutations, ``resampled [resamples, units]``.

    ``kind`` is the class with its permutations; ``seconds`` is how long it took.
    """

    scores: Tensor
    resampled: Tensor
    kind: str
    seconds: float

    @classmethod
    def of(
        cls,
        yardstick: LayerShapleyValue,
        forward_func: ForwardFunc,
        located: Located,
        references: Sequence[Reference],
        metric: Metric,
        live: Tensor,
        batches: Batches,
    ) -> ShapleyRanking:
        """Return the values of all sites' ``live [units]`` units together; those of other units are 0."""
        start = time.perf_counter()
        batches.refuse_one_shot("the yardstick makes passes of its own")
        own = yardstick.plan(int(live.sum()))
        units = live.nonzero().flatten()
        plan = Plan.both_ways([units[chain.order] for chain in own.chains[::2]], own.chains[0].counts, located.units)
        measured = Engine(forward_func, located.sites, references, metric, plan).run(batches)
        values = torch.cat([measured.intact[None], measured.values]).mean(dim=1, dtype=torch.float64)  # [1 + masks]
        taken = torch.zeros(len(plan.chains), located.units, dtype=torch.float64)
        for k, (chain, row) in enumerate(zip(plan.chains, plan.rows, strict=True)):
            curve = values[[0, *(number + 1 for number in row)]]
            taken[k, chain.order] = curve[:-1] - curve[1:]
        by_permutation = (taken[::2] + taken[1::2]) / 2  # each with its reverse, [permutations, units]
        kind = f"{type(yardstick).__name__}, {counted(len(by_permutation), 'permutation')}, reverses on top"
        resampled = resampled_means(by_permutation, yardstick.seed)
        return cls(by_permutation.mean(dim=0), resampled, kind, time.perf_counter() - start)


def resampled_means(by_permutation: Tensor, seed: int) -> Tensor:
    """Return the means ``[resamples, units]`` over resamples of ``by_permutation [permutations, units]``.

    Permutations are drawn with replacement, one fewer than there are: then the variance over resamples is, without
    bias, that of the mean over permutations (McCarthy 1969).
    """
    n = len(by_permutation)
    counts = np.random.default_rng([seed, 3]).multinomial(n - 1, np.full(n, 1 / n), RESAMPLES)
    return torch.from_numpy(counts).to(by_permutation) @ by_permutation / (n - 1)


def as_ranked_again(descending: Sequence[Tensor], ascending: Sequence[Tensor], fraction: Tensor) -> RankedAgain:
    """Return what each sample adds under resampled permutations, from their curves ``[steps+1, n]``.

    So the noise of the permutations stands in the yardstick's intervals as that of ranking data does in others'.
    """
    areas = [torch.stack([deficit_areas(one, fraction) for one in curves]) for curves in (descending, ascending)]
    return RankedAgain(*areas)


def has_shares(yardstick: DeficitCurve) -> bool:
    """Tell whether the yardstick's own gap is above 0, as far as its interval says."""
    return yardstick.gap_interval.low > 0


def share_of(curve: DeficitCurve, yardstick: DeficitCurve) -> tuple[float, Interval]:
    """Return the gap of ``curve`` over that of the ``yardstick``, with Fieller's interval.

    It covers samples, which both have in common, the yardstick's permutations, and the ranking data of ``curve`` where
    it was ranked again on resamples of them; the yardstick's ranking data are held. NaN unless the yardstick's own
    interval is above 0. A share may exceed 1: Shapley values are estimated, and made on other samples; where more than
    two units interact, another order may earn more.
    """
    if not has_shares(yardstick):
        return float("nan"), NO_INTERVAL
    above, below = (RankingNoise.of(one.resampled_gap_areas.numpy()) for one in (curve, yardstick))
    noise = np.diag([above.variance, below.variance])
    ratio = curve.gap / yardstick.gap
    both = above + RankingNoise(ratio**2 * below.variance, below.degrees)
    return fieller_interval(curve.gap_areas.numpy(), yardstick.gap_areas.numpy(), noise, both.degrees)


def share_notes(yardstick: DeficitCurve | None) -> list[str]:
    """Return a sentence where there are no shares, because the yardstick's own gap may be 0: else none."""
    if yardstick is None or has_shares(yardstick):
        return []
    return ["no shares: the data cannot tell the gap of the yardstick from 0"]
