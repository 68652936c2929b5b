r"""Do units back each other up, against a network in which they only add up: the same deficits, one unit at a time.

The additive network has the outputs of the real one where a single unit is ablated, and adds these effects up where
several are. With :math:`o_i` the outputs of sample i and :math:`o_{i \setminus u}` those without unit u,

.. math:: \tilde o_i(S) = o_i - \sum_{u \in S} (o_i - o_{i \setminus u}).

Its metric is that of its outputs, so accuracy falls at a threshold in both networks. Where the outputs are linear in
the units, as after a last layer, the two are one. The construction is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from captum_ablate.ablation import BatchOutputs, Engine, Plan, learn, locate
from captum_ablate.ablation.metrics import Metric, as_metric, class_outputs, is_named
from captum_ablate.evaluation.areas import deficit_areas
from captum_ablate.evaluation.curve import DeficitCurve
from captum_ablate.evaluation.evaluator import CumulativeAblationEvaluator
from captum_ablate.evaluation.labels import label
from captum_ablate.evaluation.plots import COLOURS, DARK_GREY, frame_lightly
from captum_ablate.inputs.batches import Batches, UnpackBatch, as_batches
from captum_ablate.inputs.borrowed import borrowed
from captum_ablate.inputs.progress import ticking
from captum_ablate.statistics.intervals import Interval, bounded_interval, mean_interval

SAME = 1e-4
"""Difference of the metric, over its size, above which data are not those of the curve."""


@dataclass(frozen=True, eq=False)
class AdditiveRedundancy:
    """The curve ``score [steps+1]`` at ``fraction [steps+1]``, and ``additive [steps+1]`` of the additive network.

    Both in units of ``metric``. ``areas [n]`` is the area between the two for each sample. ``value``, their mean, is
    above 0 where units back each other up: together they are missed more than one by one. It is below 0 where they
    work jointly. ``bounds`` are those of the metric, if it has any.
    """

    fraction: Tensor
    score: Tensor
    additive: Tensor
    areas: Tensor
    metric: str
    bounds: tuple[float, float] | None

    @property
    def value(self) -> float:
        """Area between the additive network's curve and the measured one, in units of the metric."""
        return float(self.areas.mean())

    @property
    def interval(self) -> Interval:
        """95 % interval of ``value`` over samples: ``bounded_interval`` if the metric has bounds, else Student's t."""
        values = self.areas.numpy()
        if self.bounds is None:
            return mean_interval(values)
        return bounded_interval(values, self.bounds[1] - self.bounds[0])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per step: fraction, score, additive."""
        return pd.DataFrame({n: getattr(self, n).numpy() for n in ("fraction", "score", "additive")})

    def plot(self, ax: Any = None) -> Any:
        """Draw the curve, that of the additive network and the area between them; return the axes."""
        if ax is None:
            _, ax = plt.subplots(figsize=(7.0, 4.6), layout="constrained")
        ax.plot(self.fraction, self.score, color=COLOURS[0], linewidth=1.8, label="measured")
        ax.plot(
            self.fraction, self.additive, "--", color=DARK_GREY, linewidth=1.4, label="effects of single units added up"
        )
        ax.fill_between(self.fraction, self.additive, self.score, color=COLOURS[0], alpha=0.16, linewidth=0)
        ax.set_xlim(0, 1)
        ax.set_xlabel("units ablated (fraction)")
        ax.set_ylabel(label(self.metric.replace("_", " ")))
        low, high = self.interval
        title = f"Redundancy {self.value:+.3f} [{low:+.3f}, {high:+.3f}]"
        frame_lightly(ax, title, "y", "above 0: units back each other up; below: they work jointly")
        ax.legend(frameon=False, fontsize="small")
        return ax

    def __repr__(self) -> str:
        low, high = self.interval
        return f"AdditiveRedundancy({self.value:+.3f} [{low:+.3f}, {high:+.3f}] by {self.metric}, over samples)"


def additive_redundancy(
    evaluator: CumulativeAblationEvaluator,
    curve: DeficitCurve,
    data: Any,
    *,
    ranking_data: Any = None,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    show_progress: bool = False,
) -> AdditiveRedundancy:
    """Return the area between a curve and that of a network in which the units only add up, with its interval.

    One unit at a time is ablated on ``data``, so it costs as much as ``LayerUnitAblation``. After Amjad, Liu and Geiger
    (IEEE TNNLS 2022, arXiv 1804.06679), who read redundancy from such curves; the additive network is ours.

    Args:
        evaluator: the one that made the curve.
        curve: of any order of the units.
        data: those that the curve was evaluated on, in the same order.
        ranking_data: those that "mean" or "resample" were learned from, if they were others.
        batch_size, unpack_batch: as in ``CumulativeAblationEvaluator.compare``.

    Raises:
        ValueError: if the data are not those of the curve, or samples were drawn ``until`` a precision.

    Example:
        >>> import torch
        >>> from captum_ablate import CumulativeAblationEvaluator
        >>> from captum_ablate.studies import additive_redundancy
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)).eval()
        >>> data = torch.randn(30, 4), torch.arange(30) % 2
        >>> evaluator = CumulativeAblationEvaluator(model, "1", steps=None)
        >>> found = additive_redundancy(evaluator, evaluator.evaluate(torch.rand(6), data), data)
        >>> found.value  # outputs are linear in the units of a last layer
        0.0
    """
    if curve.sampled is not None:
        raise ValueError("the samples of this curve were drawn until a precision; evaluate without until to pair them")
    options: dict[str, Any] = {"batch_size": batch_size, "unpack_batch": unpack_batch}
    model, metric = evaluator.forward_func, as_metric(evaluator.metric)
    options |= {"forward_func": model, "classes": is_named(metric)}
    batches = as_batches(data, **options)
    learned_from = batches if ranking_data is None else as_batches(ranking_data, **options)
    batches.refuse_one_shot("additive_redundancy looks at the layer first, then ablates")
    with (
        borrowed(model, *evaluator.layers, batches.owner, learned_from.owner),
        ticking("ablating one unit at a time", show_progress, batches.samples) as tick,
    ):
        at_input = evaluator.attribute_to_layer_input
        located = locate(model, evaluator.layers, evaluator.axes, batches, at_input=at_input)
        known = [
            learn(option, model, site, learned_from, evaluator.seed)
            for option, site in zip(evaluator.references, located.sites, strict=True)
        ]
        plan = Plan.singles(located.units)
        engine = Engine(model, located.sites, known, metric, plan)
        additive, target = _additive_values(engine, metric, batches, curve, tick)
    values = curve.values.to(torch.float64)
    _check_samples(values, additive, torch.equal(target, curve.target))
    areas = deficit_areas(values, curve.fraction) - deficit_areas(additive, curve.fraction)
    means = values.mean(dim=1), additive.mean(dim=1)
    return AdditiveRedundancy(curve.fraction, *means, areas, curve.provenance.metric, curve.provenance.bounds)


def _check_samples(values: Tensor, additive: Tensor, has_target: bool) -> None:
    """Raise unless the intact metric of the curve's ``values [steps+1, n]`` is that of ``additive [steps+1, n]``.

    ``has_target`` says that the targets are the curve's.
    """
    same = additive.shape == values.shape
    apart = float((additive[0] - values[0]).abs().max()) if same else float("nan")
    if not apart <= SAME * max(1.0, float(values[0].abs().max())):
        what = f"metrics that differ by up to {apart:.3g}" if same else f"{additive.shape[1]} samples"
        raise ValueError(
            f"data must be the {values.shape[1]} samples that the curve was evaluated on, in the same order; got {what}"
        )
    if not has_target:
        raise ValueError(
            f"data must be the {values.shape[1]} samples that the curve was evaluated on, in the same order; got other "
            "targets"
        )


def _additive_values(
    engine: Engine, metric: Metric, batches: Batches, curve: DeficitCurve, tick: Any
) -> tuple[Tensor, Tensor]:
    """Return the metric of the additive network along the curve's order, ``[steps+1, n]``, and the target."""
    parts, targets, first = [], [], 0
    for batch in batches:
        opened = engine.outputs_of(batch, first)
        parts.append(torch.stack([metric(one, batch.target) for one in _sums(opened, curve)]).to(torch.float64).cpu())
        targets.append(batch.target.cpu())
        first += len(batch.target)
        tick(len(batch.target))
    return torch.cat(parts, dim=1), torch.cat(targets)


def _sums(opened: BatchOutputs, curve: DeficitCurve) -> list[Tensor]:
    """Return the outputs of the additive network for one batch at each step of the curve, ``[n, classes]`` each."""
    intact = _tensor(opened.intact)
    now, steps = intact.to(torch.float64), {0: intact}
    counts = set(curve.n_ablated.tolist())
    for count, unit in enumerate(curve.order.tolist(), start=1):
        mask = torch.zeros(len(curve.scores), dtype=torch.bool)
        mask[unit] = True
        now = now - (intact.to(torch.float64) - _tensor(opened.outputs(mask)))
        if count in counts:
            steps[count] = now.to(intact.dtype)
    return [steps[count] for count in curve.n_ablated.tolist()]


def _tensor(outputs: Any) -> Tensor:
    found = class_outputs(outputs)
    if not isinstance(found, Tensor):
        raise ValueError(
            f"effects of units add up in outputs that are a Tensor; the model returns {type(found).__name__}"
        )
    return found
