"""A ranking over several layers, taken apart into rankings of one layer each, and options with one value per layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_ablate.inputs.model import ForwardFunc, find_layer, layer_name


def one_per_layer(option: Any, layers: int, name: str) -> list[Any]:
    """Return an option for each layer: a list or tuple gives one per layer, anything else is the same for all."""
    if not isinstance(option, (list, tuple)):
        return [option] * layers
    if len(option) != layers:
        raise ValueError(f"{name} must be one value, or one for each of the {layers} layers; got {len(option)}")
    return list(option)


def by_layer(method: Any, forward_func: ForwardFunc, layers: Sequence[nn.Module], units: Sequence[int]) -> list[Any]:
    """Return the method of each layer, for a method over all ``layers``, which have so many ``units``.

    It may be a list with a tensor or an attribution for each layer, an attribution of a list of layers (also inside
    ``functools.partial(unit_scores, ...)``), a mapping from layer names, or one Tensor over the units of all layers.
    """
    if isinstance(method, partial) and len(method.args) == 1:
        own = by_layer(method.args[0], forward_func, layers, units)
        return [partial(method.func, one, **method.keywords) for one in own]
    names = [layer_name(forward_func, layer) for layer in layers]
    if isinstance(method, Mapping):
        missing = [name for name in names if name not in method]
        if missing or len(method) != len(names):
            raise ValueError(f"a mapping must have the layers {names} for its keys; got {list(method)}")
        return [method[name] for name in names]
    if isinstance(method, (list, tuple)) and not all(isinstance(one, (int, float)) for one in method):
        if len(method) != len(layers):
            raise ValueError(
                f"one tensor or attribution is needed for each of the {len(layers)} layers; got {len(method)}"
            )
        return list(method)
    if isinstance(method, (Tensor, np.ndarray, list, tuple)):
        whole = torch.as_tensor(method)
        if whole.shape != (sum(units),):
            raise ValueError(
                f"scores over {len(layers)} layers are one tensor per layer, of {', '.join(map(str, units))} units, or "
                f"one Tensor [{sum(units)}]; got shape {tuple(whole.shape)}"
            )
        return list(whole.split(list(units)))
    return _of_each_layer(method, layers, names)


def _of_each_layer(method: Any, layers: Sequence[nn.Module], names: Sequence[str]) -> list[Any]:
    own = getattr(method, "layer", None)
    if not isinstance(own, (list, tuple)):
        raise ValueError(
            f"{type(method).__name__} belongs to one layer, and the evaluator ablates {len(layers)}; pass a list, an "
            "attribution for each layer, or one attribution of a list of layers"
        )
    found = [find_layer(method.forward_func, one) if isinstance(one, str) else one for one in own]
    if len(found) != len(layers) or any(not any(one is layer for one in found) for layer in layers):
        others = [layer_name(method.forward_func, one) for one in found]
        raise ValueError(f"the attribution belongs to the layers {others}, and the evaluator ablates {list(names)}")
    parts = []
    for layer in layers:
        part = copy.copy(method)
        part.layer = layer
        parts.append(part)
    return parts
