"""Does a unit's score tell what its ablation costs: per sample, the rank correlation of scores with measured drops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from captum_ablate.ablation import Engine, Plan, ReferenceOption, learn, locate, reference_name
from captum_ablate.ablation.metrics import Metric, as_metric, metric_name
from captum_ablate.attr.inner import inner, name_of
from captum_ablate.evaluation.labels import headed, name_labels, wrapped
from captum_ablate.evaluation.plots import COLOURS
from captum_ablate.inputs.batches import UnpackBatch, as_batches
from captum_ablate.inputs.borrowed import borrowed
from captum_ablate.inputs.model import ForwardFunc, Layer, as_model, find_layer, layer_name
from captum_ablate.inputs.progress import ticking
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.inputs.wording import counted, visible
from captum_ablate.statistics.intervals import Interval, mean_interval
from captum_ablate.studies.sample_scores import sample_scores

ROUNDING = 1e-6
"""Relative to the metric's size: outputs in float32 differ by so much between two executions of one network."""


@dataclass(frozen=True, eq=False)
class DeficitCorrelation:
    """Spearman's correlation, per sample, of unit scores with what each unit's own ablation takes from the metric.

    ``values [n]`` is NaN where all scores, or all drops, of a sample are equal. ``scores [n, units]`` and
    ``drops [n, units]`` are what was correlated.
    """

    name: str
    values: Tensor
    scores: Tensor
    drops: Tensor
    layer: str
    metric: str
    reference: str

    @classmethod
    def of(
        cls, scores: Tensor, drops: Tensor, *, name: str, layer: str, metric: str, reference: str
    ) -> DeficitCorrelation:
        """Correlate ``scores [n, units]`` with ``drops [n, units]``, sample by sample."""
        return cls(name, spearman_rows(scores, drops), scores, drops, layer, metric, reference)

    @property
    def defined(self) -> Tensor:
        """Samples that have a correlation, bool ``[n]``."""
        return torch.isfinite(self.values)

    @property
    def mean(self) -> float:
        """Mean over the samples that have one."""
        return float(self.values[self.defined].mean())

    @property
    def interval(self) -> Interval:
        """95 % interval of the mean over samples."""
        return mean_interval(self.values[self.defined].numpy())

    def to_frame(self) -> pd.DataFrame:
        """Return one row per sample: ``method, sample, spearman``."""
        values = self.values.numpy()
        return pd.DataFrame({"method": self.name, "sample": range(len(values)), "spearman": values})

    def plot(self, ax: Any = None) -> Any:
        """Draw the distribution over samples; return the axes."""
        return plot_correlations({self.name: self}, ax)

    def __repr__(self) -> str:
        low, high = self.interval
        undefined = len(self.values) - int(self.defined.sum())
        return (
            f"DeficitCorrelation({self.name!r}: mean Spearman {self.mean:.3f} [{low:.3f}, {high:.3f}] with the drop of "
            f"the {self.metric.replace('_', ' ')}, {counted(len(self.values), 'sample')}, {undefined} without one; "
            f"{visible(self.layer)}, {counted(self.scores.shape[1], 'unit')}, {self.reference} reference)"
        )


def deficit_correlation(
    attribution: Any,
    data: Any,
    *,
    metric: str | Metric = "logit",
    reference: ReferenceOption = "zero",
    target: str | int | None = "label",
    positions: str = "sum",
    drops: Tensor | None = None,
    unit_dim: int | None = 1,
    layer_mask: Tensor | None = None,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    show_progress: bool = False,
    **attribute_kwargs: Any,
) -> DeficitCorrelation:
    """Return per sample Spearman's correlation of a per-sample Captum layer attribution with measured drops.

    The drop of unit u for sample i is v_i - v_(i without u), v being the metric and u alone ablated. After the
    correlation study of Dhamdhere, Sundararajan and Yan (arXiv 1805.12233). Spearman and the mean over samples are
    ours.

    Args:
        attribution: such as ``LayerConductance(model, layer)``.
        data: ``(inputs, target)``, or an iterable of batches ``(*inputs, labels)``.
        metric: "logit" (of the label), "log_likelihood", "margin", or ``f(outputs, target) -> [n]``.
        reference: what stands in an ablated unit's place, as in the evaluator.
        target: the output that is attributed; the default fits the metrics, which look at the label.
        positions: a sample's attribution of a unit is the "sum" over positions, or the "mean".
        drops: ``[n, units]`` from ``unit_drops`` for this layer, data, metric and reference, to measure them once for
            several attributions.
        unit_dim: axis of the units; None for every value a unit.
        layer_mask: groups of values that are one unit, as in the attributions.
        batch_size: samples at a time where data are tensors.
        unpack_batch: turns a batch of another form into ``Batch(inputs, target)``.
        show_progress: show a progress bar.
        attribute_kwargs: further arguments of ``attribute``, such as ``n_steps=20``.

    Raises:
        ValueError: if ``drops`` do not fit the scores, the model is in training mode, or the data can be read once
            only.

    Example:
        >>> import torch
        >>> from captum.attr import LayerConductance
        >>> from captum_ablate import deficit_correlation
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)).eval()
        >>> data = torch.randn(30, 4), torch.arange(30) % 2
        >>> deficit_correlation(LayerConductance(model, model[1]), data).values.shape
        torch.Size([30])
    """
    options: dict[str, Any] = {
        "unit_dim": unit_dim,
        "layer_mask": layer_mask,
        "batch_size": batch_size,
        "unpack_batch": unpack_batch,
        "show_progress": show_progress,
    }
    scores = sample_scores(attribution, data, target=target, positions=positions, **options, **attribute_kwargs)
    own = inner(attribution)
    forward_func = as_model(own.forward_func)
    if drops is None:
        drops = unit_drops(forward_func, own.layer, data, metric=metric, reference=reference, **options)
    if drops.shape != scores.shape:
        raise ValueError(
            f"drops must have one value per sample and unit, {list(scores.shape)} here; got {list(drops.shape)}"
        )
    return DeficitCorrelation.of(
        scores,
        drops,
        name=name_of(attribution),
        layer=layer_name(forward_func, own.layer),
        metric=metric_name(metric),
        reference=reference_name(reference),
    )


def unit_drops(
    forward_func: ForwardFunc,
    layer: Layer,
    data: Any,
    *,
    metric: str | Metric = "logit",
    reference: ReferenceOption = "zero",
    unit_dim: int | None = 1,
    layer_mask: Tensor | None = None,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    show_progress: bool = False,
) -> Tensor:
    """Return what the metric of each sample loses when a unit alone is ablated, ``[n, units]`` float64.

    A drop within ``ROUNDING`` of the metric's size is 0, so that units without an effect tie. Arguments are those of
    ``deficit_correlation``.

    Raises:
        ValueError: if the model is in training mode, or the data can be read once only.

    Example:
        >>> import torch
        >>> from captum_ablate.studies import unit_drops
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)).eval()
        >>> unit_drops(model, "1", (torch.randn(8, 4), torch.arange(8) % 2)).shape
        torch.Size([8, 6])
    """
    forward_func = as_model(forward_func)
    layer = find_layer(forward_func, layer)
    batches = as_batches(data, forward_func=forward_func, batch_size=batch_size, unpack_batch=unpack_batch)
    batches.refuse_one_shot("unit_drops looks at the layer first, then ablates")
    with (
        borrowed(forward_func, layer, batches.owner),
        ticking("ablating single units", show_progress, batches.samples) as tick,
    ):
        located = locate(forward_func, [layer], [UnitAxis.of(unit_dim, layer_mask)], batches)
        known = learn(reference, forward_func, located.sites[0], batches)
        plan = Plan.singles(located.units)
        engine = Engine(forward_func, located.sites, [known], as_metric(metric), plan, tick)
        measured = engine.run(batches, located.seen)
    intact, values = measured.intact.to(torch.float64), measured.values.to(torch.float64)
    size = torch.maximum(values.abs().amax(dim=0), intact.abs())
    drops = intact - values  # [units, n]
    return torch.where(drops.abs() <= ROUNDING * size, 0.0, drops).T.contiguous()


def spearman_rows(a: Tensor, b: Tensor) -> Tensor:
    """Return Spearman's correlation of each row of ``a [n, units]`` with that of ``b [n, units]``, ``[n]``.

    Equal values share their mean rank. Where all values of a row are equal, there is no correlation (NaN).

    Example:
        >>> import torch
        >>> from captum_ablate.studies import spearman_rows
        >>> spearman_rows(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[5.0, 9.0, 7.0]])).tolist()
        [0.5]
    """
    ranks = [stats.rankdata(x.numpy(), axis=1) for x in (a, b)]
    first, second = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    spread = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return torch.from_numpy(np.where(spread > 0, (first * second).sum(axis=1) / spread, np.nan))


def plot_correlations(results: Mapping[str, DeficitCorrelation], ax: Any = None) -> Any:
    """Draw the distribution over samples of several attributions, with mean and interval; return the axes."""
    if ax is None:
        _, ax = plt.subplots(figsize=(8.0, 1.4 + 0.6 * len(results)), layout="constrained")
    shift = np.random.default_rng(0)
    for row, ((_, result), colour) in enumerate(zip(results.items(), cycle(COLOURS))):
        values = result.values[result.defined].numpy()
        height = row + shift.uniform(-0.28, 0.28, len(values))  # spread out, so that samples do not hide each other
        ax.plot(values, height, ".", color=colour, alpha=0.5, markersize=5.5, markeredgewidth=0)
        ax.hlines(row, *result.interval, color="black", linewidth=4, zorder=3)
        ax.plot(result.mean, row, "o", color="white", markeredgecolor="black", markersize=7, zorder=4)
        ax.annotate(f"{result.mean:.2f}", (1.01, row), xycoords=("axes fraction", "data"), va="center")
    ax.axvline(0, color="0.4", linewidth=1)
    ax.set_yticks(range(len(results)), name_labels(results, lines=2))
    ax.set_ylim(len(results) - 0.5, -0.5)
    ax.set_xlim(-1, 1)
    one = next(iter(results.values()))
    metric = one.metric.replace("_", " ")
    ax.set_xlabel(wrapped(f"Spearman's correlation of score and drop of the {metric}, one point a sample", 90))
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="x", linewidth=0.5, alpha=0.4)
    headed(ax, f"Does the score tell what ablation costs? {visible(one.layer)}")
    return ax
