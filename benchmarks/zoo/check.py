"""Compare the evaluator's curve of one layer with full forward passes under an independent hook."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.zoo.networks import (
    BATCH,
    CLASSES,
    IMAGES,
    IMAGES_OF_LARGE,
    LARGE,
    LAYERS,
    Layer,
    choose_layers,
    names,
    network,
    size_of,
    tensor_of,
)
from captum_ablate import CumulativeAblationEvaluator
from captum_ablate.evaluation.curve import DeficitCurve

STEPS, STEPS_AT_END, CHECKED = 4, 20, 4
"""Steps of a curve, of the curve at the last layer (enough for the closed form to pay), and steps that are checked."""
TOLERANCE = 1e-5
"""Allowed difference, as a fraction of the largest logit: closed form, another memory format, folded batch norm."""
VISIBLE = 1e-4
"""An ablation that changes less than this fraction of the largest intact logit could hide an error."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class Row:
    """The outcome of one layer.

    ``difference`` is the largest difference of the label's logit over steps and images, as a fraction of the largest
    logit, of the step or intact. ``effect`` is the largest change by ablation, as a fraction of the largest intact
    logit. ``execution`` is how the evaluator ran the suffix, or the error with which it refused.
    """

    network: str
    parameters: int
    side: int
    layer: str
    type: str = ""
    unit_dim: int = 1
    units: int = 0
    reference: str = ""
    result: str = ""
    execution: str = ""
    difference: float = np.nan
    effect: float = np.nan
    hooks_left: int = 0
    seconds: float = np.nan
    seconds_of_hooks: float = np.nan


def check(name: str, *, quick: bool = False) -> Iterator[Row]:
    """Yield a row for each layer that is chosen in the network ``name``; ``quick``: two layers and two images."""
    parameters, side = size_of(name)
    number = names().index(name)
    model, x = network(name, side, images=IMAGES if parameters < LARGE else IMAGES_OF_LARGE)
    if quick:
        x = x[:IMAGES_OF_LARGE]  # batch norms have the statistics of all: of two images, they magnify rounding
    for k, layer in enumerate(choose_layers(model, x, first=number % 2)):
        if quick and k % 2 == 0:
            continue
        reference = ("zero", "mean", "other sample")[(number + k) % 3]
        steps = STEPS_AT_END if k == LAYERS - 1 else STEPS
        found = _compare(model, x, layer, reference, steps)
        yield Row(name, parameters, side, layer.name, layer.type, layer.unit_dim, **found)


def _compare(model: nn.Module, x: Tensor, layer: Layer, reference: str, steps: int) -> dict[str, Any]:
    """Return the columns of a row that come from the comparison with full forward passes."""
    module = model.get_submodule(layer.name)
    with torch.no_grad():
        target = model(x).argmax(dim=1)
    target[0] = (target[1] + 1) % CLASSES  # two classes at least
    data = list(zip(x.split(BATCH), target.split(BATCH), strict=True))
    evaluator = CumulativeAblationEvaluator(
        model,
        module,
        reference=_other_sample if reference == "other sample" else reference,
        metric="logit",
        steps=steps,
        n_random=0,
        unit_dim=layer.unit_dim,
    )
    units = _activation(model, module, x).shape[layer.unit_dim]
    scores = torch.rand(units, generator=torch.Generator().manual_seed(0))
    row: dict[str, Any] = {"units": units, "reference": reference}
    before, start = _traces(model), time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            curve = evaluator.evaluate(scores, data)
    except Exception as error:  # a refusal is a result of the sweep
        row |= {"result": "refused", "execution": f"{type(error).__name__}: {error}"}
        return row | {"hooks_left": _traces(model) - before}
    row |= {"seconds": time.perf_counter() - start, "hooks_left": _traces(model) - before, "execution": curve.engine}
    return row | _differences(model, module, x, target, curve, reference, layer.unit_dim)


def _differences(
    model: nn.Module, module: nn.Module, x: Tensor, target: Tensor, curve: DeficitCurve, reference: str, dim: int
) -> dict[str, Any]:
    """Return how far some steps of the curve are from full forward passes, and how long these would take."""
    checked = torch.linspace(0, len(curve.n_ablated) - 1, CHECKED + 1).round().long().unique()
    start = time.perf_counter()
    expected = _by_hooks(model, module, x, curve.order, curve.n_ablated[checked], reference, dim)
    per_pass = (time.perf_counter() - start) / len(checked)
    label = target[None, :, None].expand(len(expected), -1, 1)
    largest, values = expected.abs().amax(dim=(1, 2)), expected.gather(2, label)[:, :, 0]
    difference = float(((curve.values[checked] - values).abs().amax(dim=1) / largest.clamp(min=largest[0])).max())
    return {
        "result": "to the bit" if difference == 0 else "to 1e-5" if difference <= TOLERANCE else "wrong",
        "difference": difference,
        "effect": float((values[1:] - values[0]).abs().max() / largest[0]),
        "seconds_of_hooks": per_pass * len(curve.n_ablated),
    }


def _by_hooks(
    model: nn.Module,
    module: nn.Module,
    x: Tensor,
    order: Tensor,
    counts: Tensor,
    reference: str,
    dim: int,
) -> Tensor:
    """Return the logits ``[steps + 1, n, classes]`` of one full forward pass with a hook per step and batch."""
    whole = torch.cat([_activation(model, module, part) for part in x.split(BATCH)])
    others = [d for d in range(whole.ndim) if d != dim % whole.ndim]
    mean = whole.double().mean(others, keepdim=True).to(whole.dtype)
    rows = []
    for count in counts.tolist():

        def ablate(_module: nn.Module, _args: object, output: Any, count: int = count) -> Any:
            a = tensor_of(output)
            index = torch.zeros(a.shape[dim], dtype=torch.bool)
            index[order[:count]] = True
            mask = index.reshape([-1 if d == dim % a.ndim else 1 for d in range(a.ndim)])
            new = torch.where(mask, {"zero": torch.zeros_like(a), "mean": mean}.get(reference, a.flip(0)), a)
            return new if isinstance(output, Tensor) else type(output)([new, *output[1:]])

        handle = module.register_forward_hook(ablate)
        try:
            with torch.no_grad():
                rows.append(torch.cat([model(part) for part in x.split(BATCH)]))
        finally:
            handle.remove()
    return torch.stack(rows).double()


def _other_sample(activation: Tensor, _target: Tensor) -> Tensor:
    return activation.flip(0)


def _activation(model: nn.Module, module: nn.Module, x: Tensor) -> Tensor:
    kept: list[Tensor] = []
    handle = module.register_forward_hook(lambda _module, _args, output: kept.append(tensor_of(output).clone()))
    with torch.no_grad():
        model(x)
    handle.remove()
    return kept[0]


def _traces(model: nn.Module) -> int:
    """Return how many hooks and replaced methods the modules carry."""
    hooks = sum(len(getattr(module, kind)) for module in model.modules() for kind in HOOKS)
    return hooks + sum("forward" in vars(module) or "__call__" in vars(module) for module in model.modules())
