"""Collect the activations of several layers in one hooked pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.calling import Caller, call
from captum_ablate.inputs.model import ForwardFunc, layer_name
from captum_ablate.inputs.repeats import NO_REPEAT, ONE_DRAW, refuse_changes_in_training, same
from captum_ablate.inputs.threads import of_own_pass
from captum_ablate.inputs.token_axis import warn_of_units
from captum_ablate.inputs.unchanged import has_drawn, random_states
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.inputs.warnings import warn
from captum_ablate.statistics.activation_checks import check_calls
from captum_ablate.statistics.layer_tensors import in_words, layer_inputs, returns_in_words, tensor_parts

Take = Callable[..., Any]


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
    axes: Sequence[Sequence[UnitAxis]] = (),
) -> Iterator[tuple[Batch, list[list[Any]]]]:
    """Yield each batch with ``take(tensor)`` for every tensor of each layer's output (or input).

    A tensor without the samples first, such as the last state of a GRU, is left out, with a warning, if another has
    them. ``element`` takes that tensor of each output alone. ``take``, one function or one per layer, runs inside the
    hook, before later operations can write into the tensor. If ``masked``, it is ``take(tensor, position_mask)`` for a
    batch that has one. Of ``axes``, those of each layer, a doubtful one is warned of.

    Raises:
        ValueError: if a layer does not run exactly once in a forward pass, or its first axis is not the samples.
    """
    options: dict[str, Any] = {
        "at_input": at_input,
        "element": element,
        "may_be_random": may_be_random,
        "masked": masked,
        "axes": axes,
    }
    for batch, parts in _by_number(forward_func, layers, batches, take, **options):
        yield batch, [list(values.values()) for values in parts]


def _by_number(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module],
    batches: Iterable[Batch],
    take: Take | Sequence[Take],
    *,
    at_input: bool,
    element: int | None = None,
    may_be_random: bool = False,
    masked: bool = False,
    axes: Sequence[Sequence[UnitAxis]] = (),
) -> Iterator[tuple[Batch, list[dict[int, Any]]]]:
    """Yield what ``activations`` yields, by the number of each tensor among those of its layer."""
    names = [layer_name(forward_func, layer) for layer in layers]
    takes = [take] * len(layers) if callable(take) else list(take)
    numbers: list[Sequence[int] | None] = [None if element is None else (element,)] * len(layers)
    run = Caller(forward_func)
    for number, batch in enumerate(batches):
        own = takes
        if masked and batch.position_mask is not None:
            own = [partial(_with_mask, take, batch.position_mask) for take in takes]
        if number == 0:
            refuse_changes_in_training(forward_func, layers, batch)
            states = random_states()
        with _taking(layers, names, own, at_input, numbers, len(batch.target)) as taken, torch.no_grad():
            run(batch)
        if number == 0 and not may_be_random and has_drawn(states):
            _warn_of_randomness(forward_func, layers, names, batch, numbers, at_input=at_input)
        for layer, name, calls in zip(layers, names, taken, strict=True):
            check_calls(forward_func, layer, name, len(calls), partial(call, forward_func, batch))
        seen = [calls[0] for calls in taken]
        if number == 0:
            shapes = [one.shapes if element is None else one.shapes[element : element + 1] for one in seen]
            first = samples_first(forward_func, layers, names, batch, shapes, at_input=at_input, element=element)
            numbers = list(first)
            if element is None:
                _say_left_out(names, [one.shapes for one in seen], first, at_input)
            for layer, name, one, kept, own_axes in zip(layers, names, seen, first, axes, strict=bool(axes)):
                for axis in own_axes:
                    repeat = partial(call, forward_func, batch)
                    warn_of_units(forward_func, layer, name, axis, one.shapes[kept[0]], repeat, at_input=at_input)
        yield batch, [{k: one.values[k] for k in kept or ()} for one, kept in zip(seen, numbers, strict=True)]


def _warn_of_randomness(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module],
    names: Sequence[str],
    batch: Batch,
    numbers: Sequence[Sequence[int] | None],
    *,
    at_input: bool,
) -> None:
    """Warn if two passes on the same batch give a layer different activations."""
    passes, takes, n = [], [_copy] * len(layers), len(batch.target)
    for _ in range(2):
        with _taking(layers, names, takes, at_input, numbers, n) as taken, torch.no_grad():
            call(forward_func, batch)
        passes.append([[list(one.values.values()) for one in calls] for calls in taken])
    for name, first, second in zip(names, *passes, strict=True):
        if not all(same(a, b) for a, b in zip(first, second, strict=True)):
            warn(f"{NO_REPEAT} give layer {name!r} different activations; {ONE_DRAW}")


def _copy(part: Tensor) -> Tensor:
    return part.detach().clone()


class _Seen(NamedTuple):
    """One call of a layer: the shapes of its tensors, and what was taken of those that are looked at."""

    shapes: tuple[torch.Size, ...]
    values: dict[int, Any]


def _with_mask(take: Callable[[Tensor, Tensor], Any], mask: Tensor, part: Tensor) -> Any:
    return take(part, mask)


def samples_first(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module],
    names: Sequence[str],
    batch: Batch,
    shapes: Sequence[Sequence[torch.Size]],
    *,
    at_input: bool = False,
    element: int | None = None,
) -> list[tuple[int, ...]]:
    """Return the numbers of each layer's tensors that have the samples first, or all if none has.

    ``shapes`` are of all its tensors, or of ``element`` alone. In doubt, a pass with one sample less tells.

    Raises:
        ValueError: if a layer has its positions first, as many as there are samples.
    """
    n, start = len(batch.target), element or 0
    fewer: list[tuple[torch.Size, ...]] = [()] * len(layers)
    if n > 1 and any(_is_in_doubt(of_layer, n) for of_layer in shapes):
        numbers = [() if element is None else (element,)] * len(layers)
        takes: list[Take] = [_shape] * len(layers)
        try:
            with _taking(layers, names, takes, at_input, numbers, n - 1) as taken, torch.no_grad():
                call(forward_func, batch.take(slice(n - 1)))
            fewer = [calls[0].shapes[start:] if calls else () for calls in taken]
        except Exception:  # a model made for one batch size
            pass
    found = []
    for name, own, with_fewer in zip(names, shapes, fewer, strict=True):
        stays = [len(less) > 0 and less[0] == n for less in with_fewer] + [False] * len(own)
        kept = [k for k, shape in enumerate(own) if len(shape) > 0 and shape[0] == n and not stays[k]]
        for shape in with_fewer[: len(own)] if not kept else ():
            if len(shape) > 2 and shape[0] == n and shape[1] == n - 1:
                raise ValueError(
                    f"{returns_in_words(name, at_input)} {tuple(shape)} for {n - 1} samples; the first axis of its "
                    f"{'input' if at_input else 'output'} must be the samples, and is that of positions: build it with "
                    "batch_first=True, or name a module after the transpose"
                )
        found.append(tuple(start + k for k in kept or range(len(own))))
    return found


def _is_in_doubt(shapes: Sequence[torch.Size], n: int) -> bool:
    """Tell whether positions may come first, or a tensor may be as long as the batch by chance."""
    if any(len(shape) > 2 and shape[0] == shape[1] == n for shape in shapes):
        return True
    return sum(len(shape) > 0 and shape[0] == n for shape in shapes) > 1


def _say_left_out(
    names: Sequence[str], shapes: Sequence[Sequence[torch.Size]], kept: Sequence[tuple[int, ...]], at_input: bool
) -> None:
    for name, own, numbers in zip(names, shapes, kept, strict=True):
        left_out = [f"number {k} {tuple(shape)}" for k, shape in enumerate(own) if k not in numbers]
        if left_out:
            warn(
                f"{in_words(name, at_input)} has {len(own)} tensors; left out because their first axis is not the "
                f"samples: {', '.join(left_out)}"
            )


def _shape(part: Tensor) -> torch.Size:
    return part.shape


@contextmanager
def _taking(
    layers: Sequence[nn.Module],
    names: Sequence[str],
    takes: Sequence[Take],
    at_input: bool,
    numbers: Sequence[Sequence[int] | None],
    n: int,
) -> Iterator[list[list[_Seen]]]:
    """Hook the layers; take the tensors of ``numbers``, for None those with n rows (all if there is none)."""
    taken: list[list[_Seen]] = [[] for _ in layers]
    handles = []

    def note(name: str, take: Take, calls: list[_Seen], wanted: Sequence[int] | None, output: Any) -> None:
        parts = tensor_parts(output, name, at_input=at_input)
        if wanted is None:
            wanted = [k for k, part in enumerate(parts) if part.ndim and len(part) == n] or range(len(parts))
        if any(k >= len(parts) for k in wanted):
            raise ValueError(f"{in_words(name, at_input)} has {len(parts)} tensors; there is no number {wanted[-1]}")
        shapes = tuple(part.shape for part in parts)
        calls.append(_Seen(shapes, {k: take(parts[k]) for k in wanted}))

    for layer, name, take, calls, wanted in zip(layers, names, takes, taken, numbers, strict=True):
        noting = partial(note, name, take, calls, wanted)
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


def output_shapes(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module],
    batches: Iterable[Batch],
    axis: UnitAxis,
    *,
    at_input: bool = False,
    element: int | None = None,
) -> list[dict[int, torch.Size]]:
    """Return the shape of each layer's tensors by their number, from the first of ``batches``, as ``activations``."""
    options: dict[str, Any] = {"at_input": at_input, "element": element, "may_be_random": True}
    run = _by_number(forward_func, layers, batches, _shape, axes=[[axis]] * len(layers), **options)
    _, shapes = next(run)
    return shapes
