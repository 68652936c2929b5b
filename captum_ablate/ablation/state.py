"""Find out whether a model has changed: its attributes, weights, buffers, hooks and autocast settings."""

from __future__ import annotations

from collections import deque
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)


DEEP = 4
"""Depth up to which containers and plain objects among the attributes are read."""
FEW = 64
"""Numbers of a tensor or array that are read: writes through ``.data`` leave no other trace."""


def state_of(model: nn.Module) -> list[Any]:
    """Return a list that changes when an attribute, its content, a weight, a buffer or the set of hooks changes.

    Tensors count by identity, version and some of their numbers, other objects by their content. Globals, closures and
    what lies deeper than ``DEEP`` do not count. The list is flat, because thousands of nested ones would keep Python's
    garbage collector busy.
    """
    everywhere = nn.modules.module
    found: list[Any] = [torch.get_default_dtype(), *_casts()]
    found += (len(everywhere._global_forward_hooks), len(everywhere._global_forward_pre_hooks))
    for module in model.modules():
        for name, value in module.__dict__.items():
            found.append(name)
            _mark(value, DEEP, found)
    for kind in {kind for module in model.modules() for kind in type(module).__mro__}:
        if kind.__module__.split(".")[0] != "torch":
            for name, value in vars(kind).items():
                if isinstance(value, PLAIN):
                    found += (kind, name, value)
    return found


def _casts() -> list[Any]:
    kinds = ("cpu", "cuda")
    return [mark for kind in kinds for mark in (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))]


def _mark(value: Any, deep: int, found: list[Any]) -> None:
    """Append what tells a value from others, and for a container the number of its parts."""
    if isinstance(value, PLAIN):
        found += (type(value), value)
        return
    found.append(id(value))
    if isinstance(value, Tensor):
        found += (0 if value.is_inference() else value._version, _some(value))
    elif isinstance(value, np.ndarray):
        some = value.flat[:: max(1, value.size // FEW)].tobytes() if value.size else b""
        found += (value.ndim, *value.shape, some)
    elif deep == 0 or isinstance(value, (nn.Module, type, FunctionType, ModuleType)):
        return
    elif isinstance(value, dict):
        found.append(len(value))
        for key, part in value.items():
            _mark(key, deep - 1, found)
            _mark(part, deep - 1, found)
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        found.append(len(value))
        for part in value:
            _mark(part, deep - 1, found)
    else:
        _mark(getattr(value, "__dict__", None), deep - 1, found)


def _some(tensor: Tensor) -> bytes | None:
    """Return a few numbers of a tensor on the CPU as bytes."""
    n = tensor.numel()
    if tensor.device.type != "cpu" or n == 0 or tensor.layout is not torch.strided or tensor.is_quantized:
        return None
    span = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    step = max(1, span // FEW)
    some = tensor.detach().as_strided((1 + (span - 1) // step,), (step,), tensor.storage_offset())
    return some.contiguous().view(torch.uint8).numpy().tobytes()
