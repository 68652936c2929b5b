"""Seconds that a ranking will take, told from a few samples and, for methods that ablate, from a few of their masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from captum_ablate.ablation import Engine, Located, Reference
from captum_ablate.ablation.metrics import as_metric
from captum_ablate.attr.base import LayerDatasetAttribution
from captum_ablate.attr.measured import MeasuredAttribution
from captum_ablate.evaluation.estimate import extrapolated
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.model import ForwardFunc

FEW = 16
"""Samples that a CPU ranks for an estimate: path methods take seconds for so many."""


def few_of(batch: Batch) -> Batch:
    """Return some samples of a batch on a CPU, evenly spread; on a GPU, which does more at once, all of them.

    All, too, where the samples cannot be cut apart.
    """
    n = len(batch.target)
    if n <= FEW or batch.target.is_cuda or batch.why_whole() is not None:
        return batch
    return batch.take(torch.linspace(0, n - 1, FEW).round().to(torch.int64))


def without_ablation(
    attributions: Mapping[str, Any], units: int
) -> tuple[dict[str, Any], dict[str, MeasuredAttribution]]:
    """Return the methods with equal scores ``[units]`` in the place of those that ablate; and these."""
    measured = {
        name: method
        for name, method in attributions.items()
        if isinstance(method, MeasuredAttribution)
        and type(method).attribute is LayerDatasetAttribution.attribute
        and not isinstance(method.layer, (list, tuple))
    }
    return {name: torch.zeros(units) if name in measured else one for name, one in attributions.items()}, measured


def ablation_seconds(
    method: MeasuredAttribution,
    forward_func: ForwardFunc,
    located: Located,
    references: list[Reference],
    batch: Batch,
    batches: int,
) -> float:
    """Return the seconds that a method takes which ablates, for so many ``batches`` like ``batch``."""
    plan = method.plan(located.units)

    def run(masks: int) -> None:
        few = plan.cut(masks)
        Engine(forward_func, located.sites, references, as_metric(method.metric), few).run([batch], located.seen)

    return extrapolated(run, len(plan), batches)[0]
