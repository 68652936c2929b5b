"""Refuse activations of layers that run several times, with rows that are no samples, with NaN, or complex ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate.inputs.layer_table import instead_of, why_never_called
from captum_ablate.inputs.model import ForwardFunc


def check_calls(forward_func: ForwardFunc, layer: nn.Module, name: str, calls: int, run: Callable[[], Any]) -> None:
    """Raise unless the layer ran once in a forward pass; ``run`` repeats it to find a layer to name instead."""
    if calls == 1:
        return
    why = why_never_called(forward_func, layer) if calls == 0 else ""
    if why:
        raise ValueError(
            f"layer {name!r} did not run in the forward pass: {why}. For heads, write the attention with a projection "
            "that is called, nn.Linear, and name that with attribute_to_layer_input=True"
        )
    if calls == 0:
        raise ValueError(
            f"layer {name!r} did not run in the forward pass (or its forward was called directly, which no hook "
            "sees); list_layers(model, inputs) shows which layers run"
        )
    near = instead_of(forward_func, layer, run) if isinstance(forward_func, nn.Module) else ""
    raise ValueError(
        f"layer {name!r} runs {calls} times in one forward pass, so it has no single activation; "
        + (f"name a layer that runs once instead, such as {near}" if near else "give each call a module of its own")
    )


def refuse_complex(values: Tensor, name: str) -> None:
    """Raise if activations of layer ``name`` are complex."""
    if values.is_complex():
        raise ValueError(
            f"layer {name!r} has complex activations ({values.dtype}), which have neither an order nor a sign, so they "
            "have no scores, statistics or spectrum: name a layer after .abs() or torch.view_as_real. To ablate the "
            "layer, rank its units by a Tensor of scores"
        )


def check_activations(values: Tensor, n: int, name: str, number: int) -> None:
    """Raise if activations ``[n, units]`` are not one row per sample, or not finite."""
    check_rows(values, n, name)
    check_finite(values, name, number)


def check_rows(values: Tensor, n: int, name: str) -> None:
    """Raise if activations ``[n, units]`` of layer ``name`` are not one row per sample."""
    if len(values) != n:
        raise ValueError(
            f"layer {name!r} returns {len(values)} rows for {n} samples; the first axis of its output must be the "
            "samples: build it with batch_first=True, or name a module after the transpose"
        )


def check_finite(values: Tensor, name: str, number: int) -> None:
    """Raise if activations ``[n, units]`` of layer ``name`` in batch ``number`` are not finite."""
    values = values.abs() if values.is_complex() else values
    if bool(torch.stack(torch.aminmax(values)).isfinite().all()):  # NaN is the smallest and the largest where it is
        return
    bad = (~torch.isfinite(values)).any(0).nonzero().flatten().tolist()
    raise ValueError(
        f"layer {name!r} has NaN or infinite activations in batch {number}, unit {bad[0]}"
        + (f" and {len(bad) - 1} more" if len(bad) > 1 else "")
        + "; check the inputs and the weights of the model"
    )
