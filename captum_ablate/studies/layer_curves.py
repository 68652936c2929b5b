"""Is a score comparable across layers: the same methods layer by layer, and all layers' units ranked together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from torch import nn

from captum_ablate.evaluation.comparison import Comparison
from captum_ablate.evaluation.curve import DeficitCurve
from captum_ablate.evaluation.evaluator import CumulativeAblationEvaluator
from captum_ablate.evaluation.plots import leaderboard_bars
from captum_ablate.evaluation.provenance import Frozen
from captum_ablate.inputs.batches import UnpackBatch
from captum_ablate.inputs.model import ForwardFunc, Layer, as_model, find_layer, layer_name
from captum_ablate.inputs.wording import counted, shortened
from captum_ablate.statistics.intervals import Interval, ratio_interval

POOLED = "pooled"
"""Name of the curve where the units of all layers are ranked together."""


@dataclass(frozen=True, eq=False)
class LayerCurves:
    """A ``Comparison`` for each layer by its name, and one under "pooled" for all layers' units ranked together."""

    comparisons: Mapping[str, Comparison]

    def __getitem__(self, layer: str) -> Comparison:
        if layer not in self.comparisons:
            raise KeyError(f"no layer {layer!r}; there are {', '.join(map(repr, self.comparisons))}")
        return self.comparisons[layer]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per layer and method: layer, method, units, and gap and share with their intervals.

        ``share`` is the gap divided by what is lost with every unit ablated, which compares across layers.
        """
        rows = []
        for layer, comparison in self.comparisons.items():
            for method, curve in comparison.curves.items():
                share, interval = gap_share(curve)
                row = {"layer": layer, "method": method, "units": curve.provenance.units, "gap": curve.gap}
                row |= {"gap_low": curve.gap_interval.low, "gap_high": curve.gap_interval.high, "share": share}
                rows.append({**row, "share_low": interval.low, "share_high": interval.high})
        return pd.DataFrame(rows)

    def plot(self, axes: Any = None) -> Any:
        """Draw the share of each method, one panel per layer and one for the pooled order; return the axes."""
        frame = self.to_frame()
        if axes is None:
            height = 1.7 + 0.32 * frame["method"].nunique()
            _, axes = plt.subplots(
                1,
                len(self.comparisons),
                figsize=(4.6 * len(self.comparisons), height),
                layout="constrained",
                sharex=True,
            )
        for ax, (layer, rows) in zip(np.atleast_1d(axes), frame.groupby("layer", sort=False), strict=True):
            shown = rows[["method", "share", "share_low", "share_high"]]
            title = f"{shortened(layer, 60)} ({counted(rows['units'].iloc[0], 'unit')})"
            leaderboard_bars(shown.set_axis(["method", "gap", "gap_low", "gap_high"], axis=1), ax, title=title)
            ax.set_xlabel("gap / loss with every unit ablated")
        return axes


def layer_curves(
    forward_func: Any,
    layers: Sequence[Layer],
    methods: Mapping[str, Callable[[Any, Any], Any]],
    data: Any,
    *,
    ranking_data: Any = None,
    pooled: bool = True,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    show_progress: bool = False,
    **options: Any,
) -> LayerCurves:
    """Return the curves of each method on each layer alone, and on all ``layers`` together.

    The protocol is that of Amjad, Liu and Geiger (IEEE TNNLS 2022, arXiv 1804.06679).

    Args:
        forward_func: the model.
        layers: at least one layer, as modules or dotted names.
        methods: by name, what makes an attribution of a model and a layer (or a list of layers). A class such as
            ``LayerMutualInformation``, or a function ``(model, layer) -> attribution or scores``.
        data: what the rankings are evaluated on, as in the evaluator.
        ranking_data: what the rankings are made on; without it, ``data``.
        pooled: whether to rank the units of all layers together, too.
        batch_size: samples at a time where data are tensors.
        unpack_batch: turns a batch of another form into ``Batch(inputs, target)``.
        show_progress: show progress bars.
        options: those of ``CumulativeAblationEvaluator``.

    Raises:
        TypeError: if ``layers`` is no sequence, or an empty one.
        ValueError: if two layers are the same, or one is named "pooled".

    Example:
        >>> import torch
        >>> from captum_ablate import LayerMeanActivity
        >>> from captum_ablate.studies import layer_curves
        >>> layers = torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 5), torch.nn.ReLU()
        >>> model = torch.nn.Sequential(*layers, torch.nn.Linear(5, 2)).eval()
        >>> data = torch.randn(30, 4), torch.arange(30) % 2
        >>> curves = layer_curves(model, ["1", "3"], {"activity": LayerMeanActivity}, data, n_random=2, steps=5)
        >>> curves.to_frame()[["layer", "units"]].to_numpy().tolist()
        [['1', 6], ['3', 5], ['pooled', 11]]
    """
    model = as_model(forward_func)
    places = _places(model, layers, pooled)
    call: dict[str, Any] = {"batch_size": batch_size, "unpack_batch": unpack_batch, "show_progress": show_progress}
    found = {}
    for name, place in places.items():
        own = {method: make(model, place) for method, make in methods.items()}
        evaluator = CumulativeAblationEvaluator(model, place, **options)
        found[name] = evaluator.compare(own, data, ranking_data=ranking_data, **call)
    return LayerCurves(Frozen(found))


def _places(model: ForwardFunc, layers: Sequence[Layer], pooled: bool) -> dict[str, Any]:
    """Return by name the layers to evaluate alone, and under "pooled" the list of them all."""
    if isinstance(layers, (str, nn.Module)) or not layers:
        raise TypeError(f"layers must be a sequence of at least one layer; got {layers!r}")
    modules = [find_layer(model, layer) for layer in layers]
    places: dict[str, Any] = {layer_name(model, module): module for module in modules}
    if POOLED in places:
        raise ValueError(f"a layer of the model is named {POOLED!r}, which is the name of the pooled order")
    if len(places) != len(modules):
        raise ValueError(f"layers must differ; got {', '.join(layer_name(model, module) for module in modules)}")
    if pooled and len(modules) > 1:
        places[POOLED] = modules
    return places


def gap_share(curve: DeficitCurve) -> tuple[float, Interval]:
    """Return the gap divided by the mean of v_i0 - v_iU, what is lost with every unit ablated, and its 95 % interval.

    Unlike a z score against random orders, whose spread shrinks with the number of units, it compares across layers.
    Both are NaN where nothing is lost.
    """
    lost = (curve.values[0] - curve.values[-1]).numpy()
    return ratio_interval(curve.gap_areas.numpy(), lost)
