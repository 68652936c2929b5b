"""Whether a model is still as it was: what its modules hold, beside what their forward passes compute."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)


def state_of(model: nn.Module) -> tuple[Any, ...]:
    """Return what changes when an attribute, a container or a tensor of a module does, or a hook comes or goes.

    Tensors count by identity and by the number of times that they were written to, other objects by identity.
    """
    everywhere = nn.modules.module
    found: list[Any] = [torch.get_default_dtype(), *_casts()]
    found += [len(everywhere._global_forward_hooks), len(everywhere._global_forward_pre_hooks)]
    for module in model.modules():
        found += [(name, _mark(value)) for name, value in module.__dict__.items()]
    return tuple(found)


def _casts() -> list[Any]:
    return [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")]


def _mark(value: Any) -> Any:
    if isinstance(value, PLAIN):
        return type(value), value
    if isinstance(value, Tensor):
        return id(value), 0 if value.is_inference() else value._version
    if isinstance(value, dict):
        return id(value), tuple((_key(k), _inside(v)) for k, v in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return id(value), tuple(_inside(v) for v in value)
    return id(value)


def _inside(value: Any) -> Any:
    is_flat = isinstance(value, (*PLAIN, Tensor))
    return _mark(value) if is_flat else id(value)


def _key(value: Any) -> Any:
    return value if isinstance(value, PLAIN) else id(value)
