"""Warn of units along the wrong axis: tokens taken for units, and heads sought where all heads are mixed already."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate.inputs.model import ForwardFunc
from captum_ablate.inputs.threads import of_own_pass
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.inputs.warnings import warn

_FEATURES_LAST = (
    *(nn.Linear, nn.Embedding, nn.MultiheadAttention, nn.RNNBase),
    *(nn.TransformerEncoderLayer, nn.TransformerDecoderLayer),
)
_CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.Upsample)
_POOLING = re.compile(r"(Adaptive|Fractional)?(Max|Avg|LP)(Un)?[Pp]ool\dd")
_PROJECTION = {"out_proj", "o_proj", "c_proj", "proj", "to_out", "out", "wo", "o", "dense"}
"""Names of the projection after attention in PyTorch, timm, and the families of transformers."""


def warn_of_units(
    forward_func: ForwardFunc,
    layer: nn.Module,
    name: str,
    axis: UnitAxis,
    shape: Sequence[int],
    run: Callable[[], Any],
    *,
    at_input: bool = False,
) -> None:
    """Warn if ``axis`` takes tokens for units, or seeks heads where all of them are mixed.

    What a layer's type does not tell, the layers around it do: ``run`` runs the model once to see them. Only a layer
    with ``[n, a, b]`` and ``unit_dim=1`` needs that.
    """
    side = "input" if at_input else "output"
    if axis.unit_dim == 1 and axis.groups is None and len(shape) > 2:
        reason = _why_tokens(forward_func, layer, shape, run, at_input)
        if reason is not None:
            warn(
                f"{name!r} is a {type(layer).__name__} with an {side} of shape {tuple(shape)}{reason}, and unit_dim=1 "
                f"makes its {shape[1]} positions the units; pass unit_dim=-1 for its {shape[-1]} features"
            )
    if not at_input and _has_equal_blocks(axis.groups) and _is_after_attention(forward_func, layer, name):
        advice = (
            f"ablate at the input of {name!r}: attribute_to_layer_input=True"
            if not isinstance(layer, nn.MultiheadAttention)
            else "nn.MultiheadAttention has no module between heads and projection; write the attention with a "
            "projection that is called, and name that with attribute_to_layer_input=True"
        )
        warn(
            f"layer_mask joins the output of {name!r} into blocks like attention heads, but each of its channels mixes "
            f"all heads; for heads {advice}"
        )


def _why_tokens(
    forward_func: ForwardFunc, layer: nn.Module, shape: Sequence[int], run: Callable[[], Any], at_input: bool
) -> str | None:
    """Return why the second axis holds tokens ("" if the layer's type says so), or None if it does not."""
    last = _has_features_last(layer)
    if last is not None or len(shape) != 3:
        return "" if last else None
    found = _around(forward_func, layer, run, at_input)
    if found is None:
        return None
    neighbour, kind, other = found
    if tuple(other[1:]) != tuple(shape[1:]):
        units = other[-1] if kind else other[1]
        if (shape[-1] == units) != (shape[1] == units):
            kind = shape[-1] == units
    return f", whose last axis holds the features of the {type(neighbour).__name__} beside it" if kind else None


def _has_features_last(module: nn.Module) -> bool | None:
    """Tell whether a module's features are its last axis, or the second; None if its type does not tell."""
    name = type(module).__name__
    if isinstance(module, _FEATURES_LAST) or name in ("Conv1D", "RMSNorm") or name.endswith("RMSNorm"):
        return True
    if type(module) is nn.LayerNorm:  # subclasses may have the channels first
        return True if len(module.normalized_shape) == 1 else None
    if isinstance(module, _CHANNELS_FIRST) or _POOLING.fullmatch(name):
        return False
    return None


def _around(
    forward_func: ForwardFunc, layer: nn.Module, run: Callable[[], Any], at_input: bool
) -> tuple[nn.Module, bool, torch.Size] | None:
    """Return the last module before the layer's end (else the first after it) whose type tells, and its shape."""
    owner = forward_func if isinstance(forward_func, nn.Module) else layer
    seen: list[tuple[nn.Module, bool, torch.Size] | None] = []

    def note(module: nn.Module, _args: Any, output: Any) -> None:
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        kind = _has_features_last(module)
        if kind is not None and isinstance(first, Tensor) and first.ndim > 2:
            seen.append((module, kind, first.shape))

    def reached(*_: Any) -> None:
        seen.append(None)

    with ExitStack() as stack, torch.no_grad():
        for module in owner.modules():
            if module is not layer:
                stack.callback(module.register_forward_hook(of_own_pass(note)).remove)
        mark = layer.register_forward_pre_hook if at_input else layer.register_forward_hook
        stack.callback(mark(of_own_pass(reached)).remove)
        run()
    place = seen.index(None) if None in seen else len(seen)
    return next((one for one in [*seen[:place][::-1], *seen[place:]] if one is not None), None)


def _has_equal_blocks(groups: tuple[int, ...] | None) -> bool:
    """Tell whether groups are contiguous blocks of one size, two or more of each."""
    if groups is None:
        return False
    count = max(groups) + 1
    size = len(groups) // count
    return count > 1 and size > 1 and groups == tuple(i // size for i in range(len(groups)))


def _is_after_attention(forward_func: ForwardFunc, layer: nn.Module, name: str) -> bool:
    """Tell whether a layer is attention's projection by name, in a module whose name or class says attention."""
    if isinstance(layer, nn.MultiheadAttention):
        return True
    if not isinstance(forward_func, nn.Module) or not (
        isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D"
    ):
        return False
    parts = name.split(".")
    own = [part for part in parts if not part.isdigit()]
    if not own or own[-1] not in _PROJECTION:
        return False
    for depth in range(len(parts) - 1, max(-1, len(parts) - 4), -1):
        parent = ".".join(parts[:depth])
        words = f"{parts[depth - 1] if depth else ''} {type(forward_func.get_submodule(parent)).__name__}".lower()
        if "attn" in words or "attention" in words:
            return True
    return False
