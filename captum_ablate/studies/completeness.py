"""Does an attribution account for the whole output: its sum against the change from the baseline to the input."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import Tensor

from captum_ablate.ablation.metrics import class_outputs
from captum_ablate.evaluation.plots import COLOURS
from captum_ablate.inputs.batches import Batch, as_target, as_tuple
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.model import as_model, borrowed

SMALLEST_CHANGE = 1e-6
"""Relative errors divide by no less than this."""


@dataclass(frozen=True, eq=False)
class Completeness:
    """``total [n]``: sum of the attributions of all units; ``change [n]``: F(x) - F(x'); ``delta`` is what is left."""

    name: str
    total: Tensor
    change: Tensor

    @property
    def delta(self) -> Tensor:
        """Sum of the attributions minus F(x) - F(x'), ``[n]``; 0 for a complete attribution."""
        return self.total - self.change

    @property
    def relative(self) -> Tensor:
        """``|delta|`` by ``|F(x) - F(x')|``, ``[n]``."""
        return self.delta.abs() / self.change.abs().clamp_min(SMALLEST_CHANGE)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per sample: ``method, sample, total, change, delta, relative``."""
        columns = {key: getattr(self, key).numpy() for key in ("total", "change", "delta", "relative")}
        return pd.DataFrame({"method": self.name, "sample": range(len(self.total)), **columns})

    def plot(self, ax: Any = None) -> Any:
        """Draw sums of attributions against changes of the output; return the axes."""
        return plot_completeness({self.name: self}, ax)

    def __repr__(self) -> str:
        return (
            f"Completeness({self.name!r}: median relative error {float(self.relative.median()):.3g}, "
            f"largest {float(self.relative.max()):.3g}, {len(self.total):,} samples)"
        )


def completeness_delta(
    attribution: Any,
    inputs: Tensor | tuple[Tensor, ...],
    baselines: Any,
    target: Any,
    *,
    additional_forward_args: Any = None,
    **attribute_kwargs: Any,
) -> Completeness:
    """Return how far the attributions of a layer are from adding up to F(x) - F(x'), per sample.

    Conductance is complete in the limit of many steps, for a layer that every path from the input to the output passes
    (Dhamdhere, Sundararajan and Yan, arXiv 1805.12233). A layer beside a skip connection is no such cut.

    Args:
        attribution: such as ``LayerConductance(model, layer)``; gets the baselines if it takes any.
        inputs: ``[n, ...]``, or a tuple of such.
        baselines: x', as in Captum: numbers or tensors, one for each input; None is zero.
        target: class of each sample ``[n]``, or one output index for all.
        attribute_kwargs: further arguments of ``attribute``, such as ``n_steps=500, method="riemann_trapezoid"``.
    """
    inputs = as_tuple(inputs)
    forward_func, n = as_model(attribution.forward_func), len(inputs[0])
    labels = torch.full((n,), target) if isinstance(target, int) else as_target(target)
    extra = () if additional_forward_args is None else as_tuple(additional_forward_args)
    start = _baselines(inputs, baselines)
    takes = inspect.signature(attribution.attribute).parameters
    kwargs = dict(attribute_kwargs)
    if "baselines" in takes:
        kwargs["baselines"] = start if len(start) > 1 else start[0]
    if extra:
        kwargs["additional_forward_args"] = extra
    with borrowed(forward_func, attribution.layer):
        own = tuple(x.detach().clone() for x in inputs)
        labels = labels.to(inputs[0].device)
        with torch.enable_grad():
            parts = attribution.attribute(own if len(own) > 1 else own[0], target=labels, **kwargs)
        total = sum((_sum(part, n) for part in as_tuple(parts)), start=torch.zeros(n, dtype=torch.float64))
        with torch.no_grad():
            at_input, at_start = (
                _of(class_outputs(call(forward_func, Batch(x, labels, extra))), labels) for x in (inputs, start)
            )
    return Completeness(type(attribution).__name__, total, at_input - at_start)


def plot_completeness(results: Mapping[str, Completeness], ax: Any = None) -> Any:
    """Draw sums of attributions against changes of the output: complete ones lie on the line; return the axes."""
    if ax is None:
        _, ax = plt.subplots(figsize=(5.6, 5.0), layout="constrained")
    changes = torch.cat([r.change for r in results.values()])
    ends = [float(changes.min()), float(changes.max())]
    ax.plot(ends, ends, color="0.4", linewidth=1, zorder=1)
    for (name, result), colour in zip(results.items(), cycle(COLOURS)):
        label = f"{name}: median error {float(result.relative.median()):.1%}"
        ax.plot(result.change, result.total, ".", color=colour, alpha=0.6, markeredgewidth=0, markersize=7, label=label)
    ax.set_xlabel("change of the output from baseline to input, F(x) - F(x')")
    ax.set_ylabel("sum of the attributions of all units")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(linewidth=0.5, alpha=0.4)
    ax.set_title("Completeness: on the line", loc="left", fontweight="bold", fontsize=12)
    ax.legend(fontsize="small", framealpha=0.9)
    return ax


def _baselines(inputs: tuple[Tensor, ...], baselines: Any) -> tuple[Tensor, ...]:
    given = (0,) * len(inputs) if baselines is None else as_tuple(baselines)
    if len(given) != len(inputs):
        raise ValueError(f"baselines must be one for each of the {len(inputs)} inputs; got {len(given)}")
    try:
        return tuple(torch.as_tensor(b).to(x).expand_as(x) for x, b in zip(inputs, given, strict=True))
    except RuntimeError as error:
        shapes = [tuple(torch.as_tensor(b).shape) for b in given]
        raise ValueError(
            f"baselines must be numbers or tensors that broadcast to the inputs {[tuple(x.shape) for x in inputs]}; "
            f"got {shapes}"
        ) from error


def _sum(part: Tensor, n: int) -> Tensor:
    if not isinstance(part, Tensor) or len(part) != n:
        got = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
        raise ValueError(f"attribute must return one attribution for each of the {n} samples; got {got}")
    return part.detach().double().cpu().flatten(1).sum(dim=1)


def _of(outputs: Any, target: Tensor) -> Tensor:
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"the model must give one output per class, [n, classes]; got {got}")
    return outputs.double().gather(1, target[:, None])[:, 0].cpu()
