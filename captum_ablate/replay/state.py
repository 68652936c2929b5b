"""Whether a model is still as it was: what its modules hold, beside what their forward passes compute."""

from __future__ import annotations

from collections import deque
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)


DEEP = 4
"""How deep containers and plain objects among the attributes are looked into."""
FEW = 64
"""Numbers of a tensor or array that are looked at: writes through ``.data`` leave no other trace."""


def state_of(model: nn.Module) -> tuple[Any, ...]:
    """Return what changes when an attribute, what it holds, a weight or a buffer changes, or a hook comes or goes.

    Tensors count by identity, by how often they were written to, and by some of their numbers; other objects by what
    they hold. Globals, closures, and what lies deeper than ``DEEP``, are not seen.
    """
    everywhere = nn.modules.module
    found: list[Any] = [torch.get_default_dtype(), *_casts()]
    found += [len(everywhere._global_forward_hooks), len(everywhere._global_forward_pre_hooks)]
    for module in model.modules():
        found += [(name, _mark(value, DEEP)) for name, value in module.__dict__.items()]
    for kind in {kind for module in model.modules() for kind in type(module).__mro__}:
        if kind.__module__.split(".")[0] != "torch":
            found += [(kind, name, value) for name, value in vars(kind).items() if isinstance(value, PLAIN)]
    return tuple(found)


def _casts() -> list[Any]:
    return [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")]


def _mark(value: Any, deep: int) -> Any:
    if isinstance(value, PLAIN):
        return type(value), value
    if isinstance(value, Tensor):
        return id(value), 0 if value.is_inference() else value._version, _some(value)
    if isinstance(value, np.ndarray):
        return id(value), value.shape, value.flat[:: max(1, value.size // FEW)].tobytes() if value.size else b""
    if deep == 0 or isinstance(value, (nn.Module, type, FunctionType, ModuleType)):
        return id(value)
    if isinstance(value, dict):
        return id(value), tuple((_mark(k, deep - 1), _mark(v, deep - 1)) for k, v in value.items())
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return id(value), tuple(_mark(v, deep - 1) for v in value)
    return id(value), _mark(getattr(value, "__dict__", None), deep - 1)


def _some(tensor: Tensor) -> Any:
    """Return a few numbers of a tensor on the CPU."""
    n = tensor.numel()
    if tensor.device.type != "cpu" or n == 0 or tensor.layout is not torch.strided or tensor.is_quantized:
        return None
    span = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    step = max(1, span // FEW)
    some = tensor.detach().as_strided((1 + (span - 1) // step,), (step,), tensor.storage_offset())
    return tuple(some.tolist())
