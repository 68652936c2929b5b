"""Number of units that carry a prediction: ablate each sample's own top units until the predicted class changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from captum_ablate.ablation import BatchOutputs, Chain, Engine, Plan, ReferenceOption, learn, locate, reference_name
from captum_ablate.ablation.metrics import as_metric, class_outputs
from captum_ablate.attr.per_sample_scores import PerSampleScores
from captum_ablate.attr.pieces import batches_of_samples
from captum_ablate.evaluation.labels import headed, name_labels, wrapped
from captum_ablate.evaluation.plots import COLOURS
from captum_ablate.inputs.batches import Batches, UnpackBatch
from captum_ablate.inputs.borrowed import borrowed
from captum_ablate.inputs.progress import ticking
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.inputs.values import whole_number
from captum_ablate.inputs.wording import visible
from captum_ablate.statistics.intervals import LEVEL, Interval


@dataclass(frozen=True, eq=False)
class FlipCounts:
    """Number of units ablated when the prediction of each sample changed.

    ``counts [n]`` is the smallest k at which the largest output is another one than before. Where that has not happened
    within ``limit`` it is ``limit``, and ``censored [n]`` is True. ``predicted [n]`` is the class before, ``target
    [n]`` the label.
    """

    name: str
    counts: Tensor
    censored: Tensor
    predicted: Tensor
    target: Tensor
    units: int
    limit: int
    layers: tuple[str, ...]
    reference: str

    @property
    def correct(self) -> Tensor:
        """Samples whose prediction was the label, bool ``[n]``."""
        return self.predicted == self.target

    @property
    def median(self) -> float:
        """Least k at which half of the samples have flipped; infinity where fewer have within ``limit``."""
        return float(self._sorted[(len(self.counts) - 1) // 2])

    @property
    def median_interval(self) -> Interval:
        """95 % interval of the median over samples, from order statistics: no assumption on the distribution."""
        n, ordered = len(self.counts), self._sorted
        below = int(stats.binom.ppf((1 - LEVEL) / 2, n, 0.5)) - 1  # P(X <= below) < 2.5 %
        if below < 0:
            return Interval(math.nan, math.nan)
        return Interval(float(ordered[below]), float(ordered[n - 1 - below]))

    @property
    def _sorted(self) -> np.ndarray[Any, Any]:
        return np.sort(np.where(self.censored.numpy(), np.inf, self.counts.numpy().astype(np.float64)))

    def flipped(self, k: int) -> float:
        """Return the share of samples whose prediction changed with at most ``k`` units ablated."""
        if not 0 <= k <= self.limit:
            raise ValueError(f"k must be between 0 and the limit of {self.limit} units; got {k}")
        return float(((self.counts <= k) & ~self.censored).double().mean())

    def flipped_interval(self, k: int) -> Interval:
        """Return the 95 % interval (Wilson) of ``flipped(k)`` over samples."""
        n = len(self.counts)
        found = stats.binomtest(round(self.flipped(k) * n), n).proportion_ci(LEVEL, method="wilson")
        return Interval(float(found.low), float(found.high))

    def curve(self) -> pd.DataFrame:
        """Return one row per k from 0 to ``limit``: ``method, k, flipped, low, high``.

        With one limit for all samples, and none lost before it, this is one minus the estimate of Kaplan and Meier.
        """
        intervals = [self.flipped_interval(k) for k in range(self.limit + 1)]
        return pd.DataFrame(
            {
                "method": self.name,
                "k": range(self.limit + 1),
                "flipped": [self.flipped(k) for k in range(self.limit + 1)],
                "low": [i.low for i in intervals],
                "high": [i.high for i in intervals],
            }
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per sample: ``method, sample, target, predicted, units, censored``."""
        return pd.DataFrame(
            {
                "method": self.name,
                "sample": range(len(self.counts)),
                "target": self.target.numpy(),
                "predicted": self.predicted.numpy(),
                "units": self.counts.numpy(),
                "censored": self.censored.numpy(),
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the share of flipped samples against the number of units ablated; return the axes."""
        return plot_flips({self.name: self}, ax)

    def __repr__(self) -> str:
        low, high = self.median_interval
        return (
            f"FlipCounts({self.name!r}: median {self.median:g} [{low:g}, {high:g}] of {self.units:,} units, "
            f"{int(self.censored.sum())} of {len(self.counts):,} samples not flipped by {self.limit}; "
            f"{' + '.join(self.layers)}, {self.reference} reference)"
        )


def units_to_flip(
    attribution: Any,
    data: Any,
    *,
    limit: int = 50,
    reference: ReferenceOption = "zero",
    target: str | int | None = "prediction",
    positions: str = "sum",
    unit_dim: int | None = 1,
    layer_mask: Tensor | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    show_progress: bool = False,
    **attribute_kwargs: Any,
) -> FlipCounts:
    """Return for each sample how many of its own top units must be ablated to change the prediction.

    Units are ablated one more at a time in the descending order of the sample's own scores. To look at correct
    predictions only, pass those samples. Implements the idea of the ablation study of Dhamdhere, Sundararajan and Yan
    (arXiv 1805.12233). Ours are the ranking for the predicted class, the stop at the first change, and the limit.

    Args:
        attribution: a per-sample Captum layer attribution, or a list of them, one per layer. All units of all layers
            are then ranked together, which asks for scores in one unit, such as conductances.
        data: ``(inputs, target)``, or an iterable of batches ``(*inputs, labels)``.
        limit: ablate at most so many units; samples that have not flipped by then are censored.
        reference: what stands in an ablated unit's place, as in the evaluator; "mean" and "resample" learn from the
            same data.
        target: the output that is attributed, "prediction" or, as in ``unit_scores``, "label", an index or None.
        positions: a sample's attribution of a unit is the "sum" over positions, or the "mean".
        unit_dim: axis of the units; None for every value a unit.
        layer_mask: groups of values that are one unit, as in the attributions.
        seed: of the permutation of the units that breaks ties, and of the donors of "resample".
        batch_size: samples at a time where data are tensors.
        unpack_batch: turns a batch of another form into ``Batch(inputs, target)``.
        show_progress: show a progress bar.
        attribute_kwargs: further arguments of ``attribute``, such as ``n_steps=20``.

    Raises:
        ValueError: if ``limit`` is no positive int, the attributions are of different models or of one layer, outputs
            are not ``[n, classes]``, or the data can be read once only.

    Example:
        >>> import torch
        >>> from captum.attr import LayerConductance
        >>> from captum_ablate import units_to_flip
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)).eval()
        >>> data = torch.randn(30, 4), torch.arange(30) % 2
        >>> units_to_flip(LayerConductance(model, model[1]), data, limit=6).counts.shape
        torch.Size([30])
    """
    limit = whole_number(limit, "limit", 1)
    axis = UnitAxis.of(unit_dim, layer_mask)
    scorings = _scorings(attribution, axis, target=target, positions=positions, attribute_kwargs=attribute_kwargs)
    forward_func, layers = scorings[0].forward_func, [s.layer for s in scorings]
    batches = batches_of_samples(data, forward_func, batch_size, unpack_batch)
    batches.refuse_one_shot("units_to_flip looks at the layers first, then ablates")
    with (
        borrowed(forward_func, *layers, batches.owner),
        ticking("ablating until predictions flip", show_progress, batches.samples) as tick,
    ):
        located = locate(forward_func, layers, [axis] * len(layers), batches)
        in_order, units = located.in_running_order, located.units
        known = [learn(reference, forward_func, site, batches, seed) for site in in_order]
        half = Plan.of([Chain(torch.randperm(units), (max(1, units // 2),))], units)  # for the engine's own checks
        engine = Engine(forward_func, in_order, known, as_metric("accuracy"), half)
        ties = torch.randperm(units, generator=torch.Generator().manual_seed(seed))
        limit = min(limit, units)
        counts, censored, predicted, labels = _all_flips(engine, batches, scorings, ties, limit, tick)
    return FlipCounts(
        name=scorings[0].name,
        counts=counts,
        censored=censored,
        predicted=predicted,
        target=labels,
        units=units,
        limit=limit,
        layers=tuple(located.units_by_layer),
        reference=reference_name(reference),
    )


def plot_flips(results: Mapping[str, FlipCounts], ax: Any = None) -> Any:
    """Draw the share of flipped samples of several rankings against the units ablated; return the axes.

    A band is the 95 % interval over samples; the note at a curve's end says how many samples have not flipped.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(8.0, 4.8), layout="constrained")
    for name, result, colour in zip(name_labels(results), results.values(), cycle(COLOURS)):
        frame, left = result.curve(), int(result.censored.sum())
        median = f"median {result.median:g}" if math.isfinite(result.median) else f"median > {result.limit}"
        text = f"{name}: {median}, {left} of {len(result.counts)} censored"
        ax.step(frame["k"], frame["flipped"], where="post", color=colour, linewidth=1.8, label=text)
        ax.fill_between(frame["k"], frame["low"], frame["high"], step="post", color=colour, alpha=0.1, linewidth=0)
        if left:
            ax.plot(result.limit, result.flipped(result.limit), "|", color=colour, markersize=12, markeredgewidth=2)
    one = next(iter(results.values()))
    ax.set_xlim(0, max(r.limit for r in results.values()) + 0.5)
    ax.set_ylim(0, 1.02)
    ax.set_xlabel(wrapped(f"units ablated, of {one.units:,} in {', '.join(map(visible, one.layers))}", 90))
    ax.set_ylabel("share of samples with\nanother prediction")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", linewidth=0.5, alpha=0.4)
    headed(ax, "Samples flipped by ablating their own top units")
    ax.legend(
        loc="upper left",
        bbox_to_anchor=(0, -0.16 - 0.05 * ax.get_xlabel().count("\n")),
        frameon=False,
        fontsize="small",
    )
    return ax


def _scorings(attribution: Any, axis: UnitAxis, **options: Any) -> list[PerSampleScores]:
    """Return how each of the attributions scores a sample's units; they must be of one model and different layers."""
    attributions: Sequence[Any] = attribution if isinstance(attribution, (list, tuple)) else [attribution]
    if not attributions:
        raise ValueError("attribution is an empty list; pass one attribution per layer")
    scorings = [PerSampleScores(a, axis, **options) for a in attributions]
    if any(s.forward_func is not scorings[0].forward_func for s in scorings):
        raise ValueError("all attributions of one list must be of the same forward_func; got different ones")
    if len({id(s.layer) for s in scorings}) < len(scorings):
        raise ValueError("the attributions of one list must be of different layers; two are of the same")
    return scorings


def _largest(outputs: Any, n: int) -> Tensor:
    """Return the predicted class of each sample, ``[n]``, on the CPU."""
    outputs = class_outputs(outputs)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != n:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"the model must return one output per class, [n, classes] with n = {n}; got {got}")
    if not bool(torch.isfinite(outputs).all()):
        raise ValueError("the model's outputs are NaN or infinite for some samples; check inputs and reference")
    return outputs.argmax(dim=1).cpu()


def _all_flips(
    engine: Engine, batches: Batches, scorings: Sequence[PerSampleScores], ties: Tensor, limit: int, tick: Any
) -> list[Tensor]:
    """Return counts, censored, predicted and labels of all samples, each ``[n]``; ``ties`` orders equal scores."""
    parts, first = [], 0
    for batch in batches:
        scores = torch.cat([s.per_sample(batch)[0] for s in scorings], dim=1)
        order = ties[scores[:, ties].argsort(dim=1, descending=True, stable=True)]
        opened = engine.outputs_of(batch, first)
        parts.append((*_flips(opened, order, limit, tick), batch.target.cpu()))
        first += len(batch.target)
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def _flips(opened: BatchOutputs, order: Tensor, limit: int, tick: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return counts, censored and predicted, each ``[n]``, for the ``order [n, units]`` of each sample."""
    n = len(order)
    predicted = _largest(opened.intact, n)
    mask = torch.zeros(n, order.shape[1], dtype=torch.bool)
    counts = torch.full((n,), limit)
    waiting = torch.ones(n, dtype=torch.bool)
    for k in range(1, limit + 1):
        mask.scatter_(1, order[:, k - 1 : k], True)
        now = _largest(opened.outputs(mask), n)
        tick(len(order) / limit)
        flipped = waiting & (now != predicted)
        counts[flipped] = k
        waiting &= ~flipped
        if not bool(waiting.any()):
            break
    return counts, waiting, predicted
