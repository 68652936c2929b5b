"""The activations of several layers in one hooked pass, raw or pooled over positions to ``[n, units]``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.calling import Caller, call
from captum_ablate.inputs.model import ForwardFunc, instead_of, layer_name
from captum_ablate.inputs.quantised import dequantised
from captum_ablate.inputs.repeats import NO_REPEAT, ONE_DRAW, refuse_changes_in_training, same
from captum_ablate.inputs.targets import classes_or_zeros
from captum_ablate.inputs.threads import of_own_pass
from captum_ablate.inputs.unchanged import has_drawn, random_states
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.inputs.warnings import warn

Take = Callable[..., Any]


class PooledBatch(NamedTuple):
    """Pooled activations of a batch: ``values [n, units]``, ``target [n]``, the number of positions averaged.

    ``shape`` and ``dtype`` are those of the tensor before pooling. Values lie on any device; they are float64, or of
    the layer's own type if nothing was averaged.
    """

    values: Tensor
    target: Tensor
    positions: int
    shape: torch.Size
    dtype: torch.dtype = torch.float64


def tensor_parts(output: Any, layer: str) -> tuple[Tensor, ...]:
    """Return the tensors of a layer's output: itself, or the tensor elements of a tuple or list.

    Quantised tensors count as the numbers that they stand for.
    """
    parts = output if isinstance(output, (tuple, list)) else (output,)
    tensors = tuple(part for part in parts if isinstance(part, Tensor))
    if not tensors:
        raise ValueError(
            f"layer {layer!r} returns {type(output).__name__}, which holds no tensor of units directly; name a layer "
            "inside it whose output is a Tensor or a tuple of Tensors"
        )
    if any(part.is_nested for part in tensors):
        raise ValueError(
            f"layer {layer!r} returns a nested tensor, whose samples differ in length; build the encoder with "
            "enable_nested_tensor=False"
        )
    return tuple(map(dequantised, tensors))


def layer_inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Return the arguments of a layer, positional first: they hold the tensors of ``attribute_to_layer_input``."""
    return (*args, *kwargs.values())


def activations(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module],
    batches: Iterable[Batch],
    take: Take | Sequence[Take],
    *,
    at_input: bool = False,
    element: int | None = None,
    may_be_random: bool = False,
    masked: bool = False,
) -> Iterator[tuple[Batch, list[list[Any]]]]:
    """Yield each batch with ``take(tensor)`` for every tensor of each layer's output (or input).

    ``take``, one function or one per layer, runs inside the hook, before later operations can write into the tensor.
    With ``element``, only that tensor of each output is taken. If ``masked``, it is ``take(tensor, position_mask)`` for
    a batch that has one.

    Raises:
        ValueError: if a layer does not run exactly once in a forward pass, or its first axis is not the samples.
    """
    names = [layer_name(forward_func, layer) for layer in layers]
    takes = [take] * len(layers) if callable(take) else list(take)
    run = Caller(forward_func)
    for number, batch in enumerate(batches):
        own = takes
        if masked and batch.position_mask is not None:
            own = [partial(_with_mask, take, batch.position_mask) for take in takes]
        if number == 0:
            own = [partial(_with_shape, take) for take in own]
        if number == 0:
            refuse_changes_in_training(forward_func, layers, batch)
            states = random_states()
        with _taking(layers, names, own, at_input, element) as taken, torch.no_grad():
            run(batch)
        if number == 0 and not may_be_random and has_drawn(states):
            _warn_of_randomness(forward_func, layers, names, batch, at_input=at_input, element=element)
        for layer, name, calls in zip(layers, names, taken, strict=True):
            check_calls(forward_func, layer, name, len(calls), partial(call, forward_func, batch))
        parts = [calls[0] for calls in taken]
        if number == 0:
            shapes = [[shape for shape, _ in of_layer] for of_layer in parts]
            check_samples_first(forward_func, layers, names, batch, shapes, at_input=at_input, element=element)
            parts = [[value for _, value in of_layer] for of_layer in parts]
        yield batch, parts


def _warn_of_randomness(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module],
    names: Sequence[str],
    batch: Batch,
    *,
    at_input: bool,
    element: int | None,
) -> None:
    """Warn if two passes on the same batch give a layer different activations."""
    passes = []
    for _ in range(2):
        with _taking(layers, names, [_copy] * len(layers), at_input, element) as taken, torch.no_grad():
            call(forward_func, batch)
        passes.append(taken)
    for name, first, second in zip(names, *passes, strict=True):
        if not all(same(a, b) for a, b in zip(first, second, strict=True)):
            warn(f"{NO_REPEAT} give layer {name!r} different activations; {ONE_DRAW}")


def _copy(part: Tensor) -> Tensor:
    return part.detach().clone()


def _with_shape(take: Take, part: Tensor) -> tuple[torch.Size, Any]:
    return part.shape, take(part)


def _with_mask(take: Callable[[Tensor, Tensor], Any], mask: Tensor, part: Tensor) -> Any:
    return take(part, mask)


def check_samples_first(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module],
    names: Sequence[str],
    batch: Batch,
    shapes: Sequence[Sequence[torch.Size]],
    *,
    at_input: bool = False,
    element: int | None = None,
) -> None:
    """Raise if a layer has its positions first, as many as samples; a pass with one sample less shows it."""
    n = len(batch.target)
    if n < 2 or not any(len(s) > 2 and s[0] == s[1] == n for of_layer in shapes for s in of_layer):
        return
    try:
        with _taking(layers, names, [_shape] * len(layers), at_input, element) as taken, torch.no_grad():
            call(forward_func, batch.take(slice(n - 1)))
    except Exception:  # a model made for one batch size
        return
    for name, calls in zip(names, taken, strict=True):
        for shape in calls[0] if calls else []:
            if len(shape) > 2 and shape[0] == n and shape[1] == n - 1:
                raise ValueError(
                    f"layer {name!r} returns {tuple(shape)} for {n - 1} samples; the first axis of its output must be "
                    "the samples, and is that of positions: build it with batch_first=True, or name a module after "
                    "the transpose"
                )


def _shape(part: Tensor) -> torch.Size:
    return part.shape


@contextmanager
def _taking(
    layers: Sequence[nn.Module], names: Sequence[str], takes: Sequence[Take], at_input: bool, element: int | None
) -> Iterator[list[list[list[Any]]]]:
    taken: list[list[list[Any]]] = [[] for _ in layers]
    handles = []

    def note(name: str, take: Take, calls: list[list[Any]], output: Any) -> None:
        parts = tensor_parts(output, name)
        calls.append([take(part) for part in (parts if element is None else parts[element : element + 1])])

    for layer, name, take, calls in zip(layers, names, takes, taken, strict=True):
        noting = partial(note, name, take, calls)
        if at_input:
            handles.append(
                layer.register_forward_pre_hook(
                    of_own_pass(lambda _, args, kwargs, noting=noting: noting(layer_inputs(args, kwargs))),
                    with_kwargs=True,
                )
            )
        else:
            after = of_own_pass(lambda _, __, output, noting=noting: noting(output))
            handles.append(layer.register_forward_hook(after))
    try:
        yield taken
    finally:
        for handle in handles:
            handle.remove()


def check_calls(forward_func: ForwardFunc, layer: nn.Module, name: str, calls: int, run: Callable[[], Any]) -> None:
    """Raise unless the layer ran once in a forward pass; ``run`` repeats it to find a layer to name instead."""
    if calls == 1:
        return
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


def pooled_activations(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module],
    batches: Iterable[Batch],
    axis: UnitAxis,
    *,
    at_input: bool = False,
) -> Iterator[list[list[PooledBatch]]]:
    """Yield for each batch, for each layer, the pooled activations of every tensor of its output.

    Values are checked, float64 and on the CPU.
    """
    names = [layer_name(forward_func, layer) for layer in layers]
    take = partial(_pool, axis)
    passes = activations(forward_func, layers, batches, take, at_input=at_input, masked=True)
    for number, (batch, taken) in enumerate(passes):
        target = classes_or_zeros(batch.target).cpu()
        for name, parts in zip(names, taken, strict=True):
            for values, *_ in parts:
                refuse_complex(values, name)
                check_activations(values, len(target), name, number)
        yield [[PooledBatch(values.double(), target, *rest) for values, *rest in parts] for parts in taken]


def _pool(axis: UnitAxis, part: Tensor, mask: Tensor | None = None) -> tuple[Tensor, int, torch.Size, torch.dtype]:
    return axis.pool(part, mask).cpu(), axis.positions(part.shape), part.shape, part.dtype


def output_shapes(
    forward_func: ForwardFunc, layers: Sequence[nn.Module], batches: Iterable[Batch], *, at_input: bool = False
) -> list[list[torch.Size]]:
    """Return the shape of every tensor of each layer's output (or input), from the first of ``batches``."""
    _, shapes = next(activations(forward_func, layers, batches, _shape, at_input=at_input, may_be_random=True))
    return shapes


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
            f"layer {name!r} returns {len(values)} rows for {n} samples; "
            "the first axis of its output must be the samples"
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
