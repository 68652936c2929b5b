"""Find the layers of a model; refuse models that hooks cannot reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from captum_ablate.inputs.wrappers import is_flat_graph, plain_name, unwrapped

ForwardFunc = Callable[..., Any]
Layer = nn.Module | str


def as_model(forward_func: ForwardFunc) -> ForwardFunc:
    """Return the model that hooks can reach, or refuse it.

    Compiled models and those wrapped for one device are unwrapped.

    Raises:
        TypeError: if it is no function, or a scripted, traced or exported program.
        ValueError: if it has no weights yet.
    """
    model = unwrapped(forward_func)
    if isinstance(model, torch.export.ExportedProgram) or is_flat_graph(model):
        raise TypeError(
            f"{type(model).__name__} is an exported program, whose layers are operators of one graph, and no modules; "
            "pass the nn.Module that it was exported from, or torch.export.unflatten(program)"
        )
    if isinstance(model, type):
        raise TypeError(f"{model.__name__} is a class; pass a model made of it, such as {model.__name__}(...)")
    if not callable(model):
        raise TypeError(f"forward_func must be an nn.Module or a function; got {type(model).__name__}")
    if not isinstance(model, nn.Module):
        return model
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"{type(model).__name__} is a scripted or traced model, on which Python hooks have no effect; "
            "pass the nn.Module that it was made from"
        )
    if isinstance(model, nn.DataParallel):
        raise TypeError(f"DataParallel over {len(model.device_ids)} devices is not supported; pass model.module")
    if any(is_lazy(p) for p in model.parameters()):
        raise ValueError("the model has lazy layers without weights yet; run it on one batch first")
    meta = [name for name, p in chain(model.named_parameters(), model.named_buffers()) if p.is_meta]
    if meta and not any(hasattr(m, "_hf_hook") for m in model.modules()):  # accelerate loads them when they are needed
        raise ValueError(
            f"the model is on the meta device, without numbers (first {meta[0]!r}); load its weights first, as in "
            "model.load_state_dict(weights, assign=True)"
        )
    return model


def find_layer(forward_func: ForwardFunc, layer: Layer) -> nn.Module:
    """Return the module that ``layer`` (a module, or its dotted name) means in ``forward_func``."""
    found = _found(forward_func, layer)
    refuse_scripted(found)
    return found


def refuse_scripted(layer: nn.Module) -> None:
    """Raise if a layer is scripted or traced."""
    if isinstance(layer, torch.jit.ScriptModule):
        raise TypeError(
            f"the layer {layer.original_name} is scripted or traced, and takes no Python hook; name a module around "
            "it or after it, or build the model with the nn.Module that it was made from"
        )


def _found(forward_func: ForwardFunc, layer: Layer) -> nn.Module:
    modules = None
    if isinstance(forward_func, nn.Module):
        modules = dict(forward_func.named_modules(remove_duplicate=False))  # a module may have several names
    if isinstance(layer, str):
        if modules is None:
            raise TypeError(f"layer {layer!r} is a name, but forward_func is no nn.Module; pass the module itself")
        return _named_layer(layer, modules)
    if not isinstance(layer, nn.Module):
        raise TypeError(f"layer must be an nn.Module or its dotted name; got {type(layer).__name__}")
    module: nn.Module = unwrapped(layer)
    if modules is not None and not any(m is module for m in modules.values()):
        same_type = [name for name, m in modules.items() if type(m) is type(module)][:3]
        hint = f"; layers of that type in it: {', '.join(map(repr, same_type))}" if same_type else ""
        raise ValueError(
            f"the layer {type(module).__name__} is not a module of the model{hint}; see list_layers(model, inputs)"
        )
    return module


def _named_layer(name: str, modules: dict[str, nn.Module]) -> nn.Module:
    """Return the layer of a name, with or without the parts that ``torch.compile`` and ``DataParallel`` add."""
    plain = {plain_name(own): module for own, module in modules.items()}
    for one in (name, name.removeprefix("module.")):
        found = modules.get(one, plain.get(plain_name(one)))
        if found is not None:
            inner: nn.Module = unwrapped(found)
            return inner
    raise ValueError(f"the model has no layer {name!r}{_nearest(name, plain)}")


def find_layers(forward_func: ForwardFunc, layer: Layer | Sequence[Layer]) -> list[nn.Module]:
    """Return the modules that ``layer``, or each of several, means."""
    if not isinstance(layer, (list, tuple)):
        return [find_layer(forward_func, layer)]  # type: ignore[arg-type]  # not a sequence
    if not layer:
        raise ValueError("the list of layers is empty; name at least one")
    found = [find_layer(forward_func, one) for one in layer]
    if len({id(one) for one in found}) < len(found):
        raise ValueError(f"a layer is named twice among {[layer_name(forward_func, one) for one in found]}")
    return found


def layer_name(forward_func: ForwardFunc, layer: nn.Module) -> str:
    """Return the dotted name of ``layer`` in the model, or its type if it has none."""
    if isinstance(forward_func, nn.Module):
        for name, module in forward_func.named_modules():
            if module is layer and name:
                return plain_name(name)
    return type(layer).__name__


def device_of(forward_func: Any) -> torch.device | None:
    """Return the device of the model's first parameter or buffer, or None if it has neither."""
    model = getattr(forward_func, "__self__", forward_func)
    if not isinstance(model, nn.Module):
        return None
    first = next(chain(model.parameters(), model.buffers()), None)
    return None if first is None else first.device


def has_hooks(model: nn.Module) -> bool:
    """Tell whether a forward pass runs hooks of the user, on modules of the model or on all modules."""
    everywhere = nn.modules.module
    tables = (everywhere._global_forward_hooks, everywhere._global_forward_pre_hooks)
    return any(tables) or any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def _nearest(name: str, modules: dict[str, nn.Module]) -> str:
    near = get_close_matches(name, [m for m in modules if m], n=3, cutoff=0.4)
    if near:
        return f"; nearest: {', '.join(map(repr, near))}"
    names = [m for m in modules if m]
    more = ", ..." if len(names) > 8 else ""
    return f"; it has {', '.join(map(repr, names[:8]))}{more}; list_layers(model, inputs) shows all"
