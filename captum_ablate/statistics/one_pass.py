"""One hooked pass over the data for all statistics of all layers that several scores ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captum_ablate.inputs.batches import Batch
from captum_ablate.inputs.model import ForwardFunc, layer_name
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.activations import layer_pass
from captum_ablate.statistics.class_statistics import Pooled
from captum_ablate.statistics.gathering import Gathering, Request, Rows, Statistic


@dataclass(frozen=True)
class Wanted:
    """What one score asks of one layer: ``requests``, over the units that ``axis`` says."""

    layer: nn.Module
    axis: UnitAxis
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Found:
    """The answer: for each tensor of the layer's output its shape, at the first batch, and the statistics."""

    shapes: tuple[torch.Size, ...]
    statistics: tuple[tuple[Statistic, ...], ...]


def gather(
    forward_func: ForwardFunc,
    wanted: Sequence[Wanted],
    start: Callable[[], Iterable[Batch]],
    *,
    at_input: bool = False,
) -> list[Found]:
    """Return what was wanted, in one pass over ``start()`` for all (a second one only as ``Gathering`` says).

    The same layer with the same units is pooled once, and the same request counted once.
    """
    keys = list(dict.fromkeys((one.layer, one.axis) for one in wanted))
    layers = list(dict.fromkeys(layer for layer, _ in keys))
    axes = [[axis for owner, axis in keys if owner is layer] for layer in layers]
    places = [(layers.index(layer), axes[layers.index(layer)].index(axis)) for layer, axis in keys]
    shapes: list[tuple[torch.Size, ...]] = []

    def pooled() -> Iterator[list[list[Pooled]]]:
        """Yield for each batch, for each key, the pooled tensors of the layer's output."""
        takes = [_take(own) for own in axes]
        for batch, taken in layer_pass(forward_func, layers, start(), takes, at_input=at_input):
            if not shapes:
                shapes.extend(tuple(shape for shape, _ in taken[i]) for i, _ in places)
            yield [[Pooled(by_axis[k][0], batch.target, by_axis[k][1]) for _, by_axis in taken[i]] for i, k in places]

    gatherings = [
        Gathering(
            (r for one in wanted if (one.layer, one.axis) == key for r in one.requests),
            layer_name(forward_func, key[0]),
        )
        for key in keys
    ]
    for batch in pooled():
        for gathering, parts in zip(gatherings, batch, strict=True):
            gathering.add(parts)
    again = [gathering for gathering in gatherings if gathering.needs_second_pass]
    if again:
        for batch in pooled():
            for gathering, parts in zip(gatherings, batch, strict=True):
                if gathering in again:
                    gathering.add_again(parts)
    found = {
        key: (shape, gathering.statistics()) for key, shape, gathering in zip(keys, shapes, gatherings, strict=True)
    }
    return [_found(one, *found[one.layer, one.axis]) for one in wanted]


def _take(axes: Sequence[UnitAxis]) -> Callable[[Tensor], tuple[torch.Size, list[tuple[Tensor, int]]]]:
    """Return what a hook takes of a tensor: its shape, and the pooled values and positions for each axis."""
    known: dict[tuple[torch.Size, torch.dtype], list[tuple[Callable[[Tensor], Tensor], int]]] = {}
    rows = [Rows() for _ in axes]

    def take(part: Tensor) -> tuple[torch.Size, list[tuple[Tensor, int]]]:
        kind = part.shape, part.dtype
        if kind not in known:
            known[kind] = [
                (axis.pool if axis.averages(part) else own.copy, axis.positions(part.shape))
                for axis, own in zip(axes, rows, strict=True)
            ]
        return part.shape, [(pool(part), positions) for pool, positions in known[kind]]

    return take


def _found(one: Wanted, shapes: tuple[torch.Size, ...], statistics: list[dict[Request, Statistic]]) -> Found:
    return Found(shapes, tuple(tuple(by_request[r] for r in one.requests) for by_request in statistics))
