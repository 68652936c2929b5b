"""Does an attribution account for the whole output: its sum against the change from the baseline to the input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import Tensor

from captum_ablate.ablation.metrics import class_outputs
from captum_ablate.attr.inner import inner, name_of, parameters
from captum_ablate.attr.pieces import Pieces
from captum_ablate.evaluation.labels import headed, name_labels
from captum_ablate.evaluation.plots import COLOURS
from captum_ablate.inputs.batch import Batch, as_tuple
from captum_ablate.inputs.borrowed import borrowed
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.model import as_model
from captum_ablate.inputs.repeats import refuse_changes_in_training
from captum_ablate.inputs.targets import as_target
from captum_ablate.inputs.threads import hooks_of_own_pass
from captum_ablate.inputs.values import int_or_none, refuse_complex
from captum_ablate.inputs.wording import counted

SMALLEST_CHANGE = 1e-6
"""Relative errors divide by no less than this share of the largest change."""


@dataclass(frozen=True, eq=False)
class Completeness:
    """Sums of attributions beside what they should add up to, in units of the output.

    ``total [n]`` is the sum over all units, ``change [n]`` is F(x) - F(x').
    """

    name: str
    total: Tensor
    change: Tensor

    @property
    def delta(self) -> Tensor:
        """Sum of the attributions minus F(x) - F(x'), ``[n]``; 0 for a complete attribution."""
        return self.total - self.change

    @property
    def relative(self) -> Tensor:
        """``|delta|`` by ``|F(x) - F(x')|``, ``[n]``; 0 where both are 0, infinite where nothing changes at all."""
        size = self.change.abs()
        if len(size):
            size = size.clamp_min(SMALLEST_CHANGE * float(size.max()))
        return torch.where(self.delta == 0, 0.0, self.delta.abs() / size)

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
            f"largest {float(self.relative.max()):.3g}, {counted(len(self.total), 'sample')})"
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

    Conductance is complete in the limit of many steps (Dhamdhere, Sundararajan and Yan, arXiv 1805.12233). Every path
    from the input to the output must pass the layer; a layer beside a skip connection is no such cut.

    Args:
        attribution: such as ``LayerConductance(model, layer)``; it receives the baselines if it takes any.
        inputs: ``[n, ...]``, or a tuple of such.
        baselines: x', as in Captum: numbers or tensors, one for each input; None is zero.
        target: class of each sample ``[n]``, or one output index for all.
        additional_forward_args: further arguments of the model, as in Captum.
        attribute_kwargs: further arguments of ``attribute``, such as ``n_steps=500, method="riemann_trapezoid"``.

    Raises:
        ValueError: if baselines do not fit the inputs, the model is in training mode, or its output is not
            ``[n, classes]``.

    Example:
        >>> import torch
        >>> from captum.attr import LayerConductance
        >>> from captum_ablate import completeness_delta
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)).eval()
        >>> found = completeness_delta(LayerConductance(model, model[1]), torch.randn(8, 4), 0, target=1)
        >>> found.delta.shape
        torch.Size([8])
    """
    inputs = as_tuple(inputs)
    layer, forward_func, n = inner(attribution).layer, as_model(inner(attribution).forward_func), len(inputs[0])
    index = int_or_none(target)
    labels = as_target(target) if index is None else torch.full((n,), index)
    extra = () if additional_forward_args is None else as_tuple(additional_forward_args)
    start = _baselines(inputs, baselines)
    takes = parameters(attribution)
    kwargs = dict(attribute_kwargs)
    if "baselines" in takes:
        kwargs["baselines"] = start if len(start) > 1 else start[0]

    def total_of(piece: Batch, options: dict[str, Any]) -> Tensor:
        own = tuple(x.detach().clone() for x in piece.inputs)
        if piece.additional_forward_args:
            options = {**options, "additional_forward_args": piece.additional_forward_args}
        if "target" in takes:
            options = {**options, "target": piece.target}
        with hooks_of_own_pass(), torch.enable_grad():
            parts = as_tuple(attribution.attribute(own if len(own) > 1 else own[0], **options))
        samples = len(piece.target)
        return sum((_sum(part, samples) for part in parts), start=torch.zeros(samples, dtype=torch.float64))

    with borrowed(inner(attribution).forward_func, forward_func, layer):
        labels = labels.to(inputs[0].device)
        batch = Batch(inputs, labels, extra)
        refuse_changes_in_training(forward_func, [layer], batch)
        pieces = Pieces(attribution, forward_func, layer)
        total = torch.cat([total_of(piece, options) for piece, options in pieces(batch, kwargs, total_of)])
        with torch.no_grad():
            at_input, at_start = (
                _output(class_outputs(call(forward_func, Batch(x, labels, extra))), labels) for x in (inputs, start)
            )
    return Completeness(name_of(attribution), total, at_input - at_start)


def plot_completeness(results: Mapping[str, Completeness], ax: Any = None) -> Any:
    """Draw sums of attributions against changes of the output; return the axes. Complete ones lie on the line."""
    if ax is None:
        _, ax = plt.subplots(figsize=(5.6, 5.0), layout="constrained")
    changes = torch.cat([r.change for r in results.values()])
    ends = [float(changes.min()), float(changes.max())]
    ax.plot(ends, ends, color="0.4", linewidth=1, zorder=1)
    for name, result, colour in zip(name_labels(results), results.values(), cycle(COLOURS)):
        label = f"{name}: median error {float(result.relative.median()):.1%}"
        ax.plot(result.change, result.total, ".", color=colour, alpha=0.6, markeredgewidth=0, markersize=7, label=label)
    ax.set_xlabel("change of the output from baseline to input, F(x) - F(x')")
    ax.set_ylabel("sum of the attributions of all units")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(linewidth=0.5, alpha=0.4)
    headed(ax, "Completeness: on the line")
    ax.legend(fontsize="small", framealpha=0.9)
    return ax


def _baselines(inputs: tuple[Tensor, ...], baselines: Any) -> tuple[Tensor, ...]:
    """Return one baseline per input, of the input's shape."""
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
    """Return the sum of each sample's attributions, float64 ``[n]``."""
    if not isinstance(part, Tensor) or len(part) != n:
        got = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
        raise ValueError(f"attribute must return one attribution for each of the {n} samples; got {got}")
    refuse_complex(part, "attributions")
    return part.detach().double().cpu().flatten(1).sum(dim=1)


def _output(outputs: Any, target: Tensor) -> Tensor:
    """Return each sample's output of its ``target [n]``, float64 ``[n]``."""
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(f"the model must return one output per class, [n, classes]; got {got}")
    refuse_complex(outputs, "the model's outputs")
    return outputs.double().gather(1, target[:, None])[:, 0].cpu()
