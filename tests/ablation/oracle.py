"""The plain hook loop that the engine must equal: one full forward pass per step, with one forward hook."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate import CumulativeAblationEvaluator
from captum_ablate.ablation import choose

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}


@contextmanager
def one_thread() -> Iterator[None]:
    """Run in one thread, where networks this small are faster, and the same on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check(
    build: Callable[[], nn.Module],
    layer: str,
    x: Any,
    y: Tensor,
    *,
    scores: Tensor | None = None,
    sensitive: bool = True,
    exact: bool = True,
    **options: Any,
) -> Any:
    """Evaluate a fresh model, compare the curve with the hook loop on its twin, and return the curve.

    With ``exact``, every bit must agree where the operators of a full pass were asked for.
    """
    options = {"metric": "logit", "steps": None, "n_random": 0, "seed": 0, "batch_size": 3, **options}
    model, twin = build(), build()
    if scores is None:
        scores = scores_for(build(), layer, x, options.get("unit_dim", 1))
    curve = evaluated(model, layer, scores, (x, y), **options)
    assert_order(curve, scores)
    expected = hook_loop(twin, layer, x, y, curve.order, curve.n_ablated, **for_oracle(options))
    if sensitive:
        assert not torch.equal(expected[0], expected[-1]), "the ablation has no effect on the network"
    assert_matches(curve, expected, options.get("reference", "zero"), dtype_of(twin), exact=exact)
    return curve


def evaluated(
    model: Any, layer: Any, scores: Tensor, data: Any, *, batch_size: int | None = None, **options: Any
) -> Any:
    """Return the curve of an evaluator with these ``options``, on batches of ``batch_size`` samples."""
    options = {"live_units_only": False, **options}  # the engine is tested on all units
    return CumulativeAblationEvaluator(model, layer, **options).evaluate(scores, data, batch_size=batch_size)


def hook_loop(
    model: Callable[..., Any],
    layer: str | nn.Module,
    x: Any,
    y: Tensor,
    order: Any,
    n_ablated: Any,
    *,
    reference: Any = "zero",
    metric: Any = "logit",
    batch_size: int | None = None,
    unit_dim: int | None = 1,
) -> Tensor:
    """Return the values ``[steps+1, n]`` of full forward passes with a hook that writes ``torch.where``."""
    layer = model.get_submodule(layer) if isinstance(layer, str) else layer
    order = torch.as_tensor(order)
    batches = list(split(x, y, batch_size))
    if isinstance(reference, str) and reference == "mean":
        reference = unit_means(model, layer, batches, unit_dim)
    columns = []
    for inputs, target in batches:
        rows = []
        for count in [int(k) for k in n_ablated]:
            outputs = forward(model, layer, inputs, order[:count], target, reference, unit_dim)
            rows.append(per_sample(outputs, target, metric))
        columns.append(torch.stack(rows))
    return torch.cat(columns, dim=1)


def forward(
    model: Callable[..., Any],
    layer: nn.Module,
    inputs: tuple[Any, ...],
    ablated: Tensor,
    target: Tensor,
    reference: Any,
    unit_dim: int | None,
) -> Any:
    """Return the outputs of one full forward pass in which the ``ablated`` units are replaced."""

    def ablate(_module: nn.Module, _args: Any, output: Any) -> Any:
        first = output if isinstance(output, Tensor) else output[0]
        replaced = torch.where(
            mask_of(ablated, first.shape, unit_dim), reference_of(reference, first, target, unit_dim), first
        )
        if isinstance(output, Tensor):
            return replaced
        parts = [replaced, *output[1:]]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)

    handle = layer.register_forward_hook(ablate)
    try:
        with torch.no_grad():
            return model(*(part.clone() if isinstance(part, Tensor) else part for part in inputs))
    finally:
        handle.remove()


def mask_of(ablated: Tensor, shape: torch.Size, unit_dim: int | None) -> Tensor:
    """Return True at every element of the ablated units, in a shape that broadcasts against the output."""
    if unit_dim is None:
        flat = torch.zeros(shape[1:].numel(), dtype=torch.bool)
        flat[ablated] = True
        return flat.reshape(1, *shape[1:])
    dim = unit_dim % len(shape)
    flat = torch.zeros(shape[dim], dtype=torch.bool)
    flat[ablated] = True
    return flat.reshape([-1 if d == dim else 1 for d in range(len(shape))])


def reference_of(reference: Any, activation: Tensor, target: Tensor, unit_dim: int | None) -> Tensor:
    """Return what replaces ``activation``, in its shape."""
    if isinstance(reference, str):
        return torch.zeros_like(activation)
    if isinstance(reference, UnitMeans):
        return reference.like(activation, unit_dim)
    if isinstance(reference, Tensor):
        return reference.to(activation.dtype).expand_as(activation)
    return reference(activation.clone(), target)


class UnitMeans:
    """One number per unit, over all samples and positions."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def like(self, activation: Tensor, unit_dim: int | None) -> Tensor:
        if unit_dim is None:
            return self.values.reshape(1, *activation.shape[1:]).expand_as(activation).to(activation.dtype)
        dim = unit_dim % activation.ndim
        shape = [-1 if d == dim else 1 for d in range(activation.ndim)]
        return self.values.reshape(shape).expand_as(activation).to(activation.dtype)


def unit_means(
    model: Callable[..., Any],
    layer: nn.Module,
    batches: list[tuple[tuple[Any, ...], Tensor]],
    unit_dim: int | None,
) -> UnitMeans:
    """Return the mean activation of each unit over all samples and positions."""
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        first = output if isinstance(output, Tensor) else output[0]
        kept.append(first.detach().clone().double())

    handle = layer.register_forward_hook(keep)
    with torch.no_grad():
        for inputs, _ in batches:
            model(*(part.clone() if isinstance(part, Tensor) else part for part in inputs))
    handle.remove()
    rows = torch.cat(kept)
    if unit_dim is None:
        return UnitMeans(rows.mean(0).flatten())
    return UnitMeans(rows.movedim(unit_dim, 1).flatten(2).mean((0, 2)) if rows.ndim > 2 else rows.mean(0))


def per_sample(outputs: Any, target: Tensor, metric: Any) -> Tensor:
    """Return the metric of each sample, ``[n]``."""
    outputs = getattr(outputs, "logits", outputs)
    if callable(metric):
        return metric(outputs, target)
    outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
    rows = torch.arange(len(target))
    if metric == "accuracy":
        return (outputs.argmax(1) == target).float()
    if metric == "log_likelihood":
        return torch.log_softmax(outputs, 1)[rows, target]
    assert metric == "logit", metric
    return outputs[rows, target]


def split(x: Any, y: Tensor, batch_size: int | None) -> list[tuple[tuple[Any, ...], Tensor]]:
    """Return the batches ``(inputs, target)``, the last one possibly smaller."""
    inputs = x if isinstance(x, tuple) else (x,)
    size = batch_size or len(y)
    return [(tuple(part[i : i + size] for part in inputs), y[i : i + size]) for i in range(0, len(y), size)]


def scores_for(model: nn.Module, layer: str, x: Any, unit_dim: int | None = 1) -> Tensor:
    """Return distinct random scores, one for each unit of the layer."""
    shapes: list[torch.Size] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda _m, _a, out: shapes.append((out if isinstance(out, Tensor) else out[0]).shape)
    )
    ((inputs, _),) = split(x, torch.zeros(len(x[0] if isinstance(x, tuple) else x)), None)
    with torch.no_grad():
        model(*(part.clone() if isinstance(part, Tensor) else part for part in inputs))
    handle.remove()
    shape = shapes[0]
    units = shape[1:].numel() if unit_dim is None else shape[unit_dim]
    return torch.randperm(units, generator=torch.Generator().manual_seed(3)).double() / units - 0.3


def for_oracle(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of an evaluation that the hook loop has too."""
    return {k: options[k] for k in ("reference", "metric", "batch_size", "unit_dim") if k in options}


def dtype_of(model: nn.Module) -> torch.dtype:
    """Return the type of the model's first parameter."""
    return next((p.dtype for p in model.parameters()), torch.float32)


def assert_order(curve: Any, scores: Tensor) -> None:
    """Check order and counts: most important first, from nothing to everything."""
    order, counts = torch.as_tensor(curve.order), [int(k) for k in curve.n_ablated]
    assert sorted(order.tolist()) == list(range(len(scores)))
    assert bool((scores[order].diff() <= 0).all())
    assert counts[0] == 0
    assert counts[-1] == len(scores)
    assert counts == sorted(set(counts))


def is_exact(curve: Any, reference: Any = "zero") -> bool:
    """Tell whether the operators of full passes were asked for, so that every bit must agree.

    The oracle sums means in another order.
    """
    if isinstance(reference, str) and reference == "mean":
        return False
    return choose.FORCED in ("graph", "hook loop") or curve.engine.startswith("hook loop")


def assert_matches(
    curve: Any,
    expected: Tensor,
    reference: Any = "zero",
    dtype: torch.dtype = torch.float32,
    *,
    exact: bool = True,
) -> None:
    """Compare ``curve.values`` with the hook loop: to the bit where a full pass's operators were asked for."""
    assert curve.engine.startswith(("graph", "closed form", "hook loop")), curve.engine
    values = torch.as_tensor(curve.values).double()
    expected = expected.double()
    assert values.shape == expected.shape
    if exact and is_exact(curve, reference):
        worst = (values - expected).abs().amax().item()
        assert torch.equal(values.nan_to_num(1e30), expected.nan_to_num(1e30)), (curve.engine, worst)
        return
    scale = max(1.0, expected.abs().nan_to_num(0, 0, 0).amax().item())
    torch.testing.assert_close(
        values,
        expected,
        rtol=0,
        atol=TOLERANCE[dtype] * scale,
        equal_nan=True,
        msg=lambda m: f"{curve.engine}: {m}",
    )
