"""Put a model's own code and ordinary tensors in the place of compiled code and inference tensors, for one call."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn


def run_eagerly(modules: Iterable[nn.Module]) -> None:
    """Set compiled code aside, of ``module.compile()`` and ``torch.compile(module)``: it would compile every hook anew.

    Data parallelism without a device is set aside too, which some of Captum's methods trip over. Attributes of modules
    are changed, which ``unchanged`` gives back.
    """
    for module in modules:
        if module.__dict__.get("_compiled_call_impl") is not None:
            module.__dict__["_compiled_call_impl"] = None
        if isinstance(module, nn.DataParallel) and not module.device_ids:
            module.__dict__["device_ids"] = None
        if "dynamo_ctx" in module.__dict__:
            module.__dict__["forward"] = partial(_call, module.get_submodule("_orig_mod"))


def without_inference_tensors(modules: Iterable[nn.Module]) -> None:
    """Put copies in the place of weights, buffers and attributes that inference mode made: these take no gradient.

    Attributes and containers of modules are changed, which ``unchanged`` gives back.
    """
    copies: dict[int, Tensor] = {}
    for module in modules:
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers, module.__dict__)
        for table in tables:
            for name, value in table.items():
                if isinstance(value, Tensor) and value.is_inference():
                    table[name] = copies.setdefault(id(value), _ordinary(value))
        flat = module.__dict__.get("_flat_weights")
        if isinstance(flat, list) and copies:  # of recurrent layers
            flat[:] = [copies.get(id(weight), weight) for weight in flat]


def _call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call a module; ``module.__call__`` would not be intercepted."""
    return module(*args, **kwargs)


def ordinary(tensor: Tensor) -> Tensor:
    """Return ``tensor``, or a copy if inference mode made it."""
    return tensor.detach().clone() if tensor.is_inference() else tensor


def _ordinary(value: Tensor) -> Tensor:
    if not isinstance(value, nn.Parameter):
        return value.detach().clone()
    return nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad)
