"""The layers of a model in a table, and what to name in the place of a layer that hooks cannot see once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.model import ForwardFunc, as_model
from captum_ablate.inputs.threads import of_own_pass
from captum_ablate.inputs.unchanged import unchanged
from captum_ablate.inputs.units import UnitAxis


def list_layers(
    model: nn.Module,
    *inputs: Any,
    unit_dim: int | None = 1,
    attribute_to_layer_input: bool = False,
    **keyword_inputs: Any,
) -> pd.DataFrame:
    """Return one row per layer, in the order in which they first run.

    Attributions and ablation need a layer with one call.

    Args:
        model: it runs once, on ``inputs`` and ``keyword_inputs``.
        inputs: the arguments of its forward pass, or one ``Batch``.
        unit_dim: axis of the units; None makes every element of the output a unit.
        attribute_to_layer_input: show what layers receive, not what they return.

    Returns:
        A frame of ``name``, ``type``, ``output_shape`` (or ``input_shape``) and ``units`` of the last call, and
        ``calls`` in the pass. Units are those of the first tensor. A column ``note`` says why ``out_proj`` of
        ``nn.MultiheadAttention`` has no call, if there is one.

    Raises:
        TypeError: if ``model`` is no module, or one that hooks cannot reach, or ``inputs`` come in one tuple.

    Example:
        >>> import torch
        >>> from captum_ablate import list_layers
        >>> model = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.ReLU())
        >>> list_layers(model, torch.zeros(2, 5))[["name", "output_shape", "units"]]
          name output_shape  units
        0    0       (2, 3)      3
        1    1       (2, 3)      3
    """
    model_ = as_model(model)
    if not isinstance(model_, nn.Module):
        raise TypeError(
            f"list_layers needs an nn.Module; got {type(model).__name__}. Pass the module that a function runs, with "
            "the inputs that it gets"
        )
    if len(inputs) == 1 and isinstance(inputs[0], (tuple, list)) and not isinstance(inputs[0], Batch):
        raise TypeError(
            f"list_layers takes the arguments of a forward pass one by one, or one Batch; got a "
            f"{type(inputs[0]).__name__}: call list_layers(model, *inputs)"
        )
    batch = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], Batch) else Batch(inputs, ())
    names = {module: name for name, module in model_.named_modules() if name}
    axis, calls, shapes = UnitAxis.of(unit_dim), Counter[str](), dict[str, object]()

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        received = (*args, *kwargs.values())
        shapes[names[module]] = _shape(received[0] if len(received) == 1 else received)

    def after(module: nn.Module, _args: Any, output: Any) -> None:
        calls[names[module]] += 1
        if not attribute_to_layer_input:
            shapes[names[module]] = _shape(output)

    with unchanged(model_), torch.no_grad():
        for module in names:
            if attribute_to_layer_input:
                module.register_forward_pre_hook(of_own_pass(before), with_kwargs=True)
            module.register_forward_hook(of_own_pass(after))
        call(lambda *given: model_(*given[:-1], **given[-1]), _with_keywords(batch, keyword_inputs))
    order = [*calls, *(name for name in names.values() if name not in calls)]
    modules = {name: module for module, name in names.items()}
    kind = "input_shape" if attribute_to_layer_input else "output_shape"
    rows = [(n, type(modules[n]).__name__, shapes.get(n), _units(axis, shapes.get(n)), calls[n]) for n in order]
    frame = pd.DataFrame(rows, columns=["name", "type", kind, "units", "calls"]).astype({"units": "Int64"})
    notes = [why_never_called(model_, modules[n]) if calls[n] == 0 else "" for n in order]
    return frame.assign(note=notes) if any(notes) else frame


def _with_keywords(batch: Batch, keywords: dict[str, Any]) -> Batch:
    """Return the batch with the arguments that go by name after all others."""
    return Batch((*batch.inputs, *batch.additional_forward_args), batch.target, (keywords,))


def why_never_called(forward_func: ForwardFunc, layer: nn.Module) -> str:
    """Return why a module that belongs to the model is never called, or "" if no reason is known."""
    owners = forward_func.modules() if isinstance(forward_func, nn.Module) else ()
    if any(isinstance(one, nn.MultiheadAttention) and one.out_proj is layer for one in owners):
        return "nn.MultiheadAttention uses its weights without calling it, so no hook sees the heads"
    return ""


def instead_of(model: nn.Module, layer: nn.Module, run: Callable[[], Any]) -> str:
    """Return names of layers that run once in a forward pass (``run``) and can replace ``layer``."""
    names = {module: name for name, module in model.named_modules() if name}
    order: list[nn.Module] = []
    note = of_own_pass(lambda module, *_: order.append(module))
    handles = [m.register_forward_hook(note) for m in names]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    calls = Counter(names[m] for m in order)
    own = names.get(layer, "")
    parents = [own[:i] for i, character in enumerate(own) if character == "."][::-1]
    feeding = [names[order[i - 1]] for i, m in enumerate(order) if m is layer and i > 0]
    once = [name for name in dict.fromkeys([*feeding, *parents]) if calls[name] == 1]
    return ", ".join(map(repr, once[:3]))


def _shape(output: Any) -> object:
    if isinstance(output, Tensor):
        return tuple(output.shape)
    if isinstance(output, Sequence) and not isinstance(output, str):
        return tuple(_shape(part) for part in output)
    return type(output).__name__


def _units(axis: UnitAxis, shape: object) -> int | None:
    """Return the number of units of a shape, or of the first shape among several; None if it has none."""
    if not isinstance(shape, tuple):
        return None
    if not all(isinstance(size, int) for size in shape):
        return next((_units(axis, part) for part in shape if _is_shape(part)), None)
    try:
        return axis.count(shape)
    except ValueError:
        return None


def _is_shape(part: object) -> bool:
    return isinstance(part, tuple) and all(isinstance(size, int) for size in part)
