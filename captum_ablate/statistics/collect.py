"""Collect the statistics that several scores request, in one pass over the data; others may listen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from captum_ablate.inputs.batches import Batch
from captum_ablate.inputs.model import ForwardFunc, layer_name
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.activations import PooledBatch, activations
from captum_ablate.statistics.chunks import Rows
from captum_ablate.statistics.requests import Request, Statistic
from captum_ablate.statistics.unit_statistics import UnitStatistics


@dataclass(frozen=True)
class LayerRequest:
    """The statistics that one score needs of one layer, whose units lie along ``axis``.

    Without ``requests``, the activations are only checked.
    """

    layer: nn.Module
    axis: UnitAxis
    requests: tuple[Request, ...] = ()


@dataclass(frozen=True)
class LayerStatistics:
    """The answer, for each tensor of the layer's output: its shape in the first batch, and the statistics."""

    shapes: tuple[torch.Size, ...]
    statistics: tuple[tuple[Statistic, ...], ...]


def collect(
    forward_func: ForwardFunc,
    requests: Sequence[LayerRequest],
    batches: Iterable[Batch],
    *,
    at_input: bool = False,
    element: int | None = None,
    on_output: Mapping[nn.Module, Callable[[Tensor], None]] | None = None,
    on_batch: Callable[[Batch], None] | None = None,
) -> list[LayerStatistics]:
    """Return the statistics of each request, from one pass over ``batches``.

    The same layer with the same units is pooled once, and the same request counted once. A second pass is made only
    for histograms whose edges depend on the range of the data, and only if the activations exceed ``TABLE_BYTES``.
    Listeners hear the first pass only; ``collect`` raises what they raise.

    Args:
        forward_func: the model, or a function that runs it.
        requests: one for each score and layer.
        batches: iterated once, or twice as said above.
        at_input: look at the inputs of the layers, not at their outputs.
        element: look only at this tensor of every output; None looks at all.
        on_output: a listener for each layer. It receives each tensor that is looked at, raw ``[n, ...]``, inside the
            forward pass: it must copy what it keeps, because later operations may write into the tensor.
        on_batch: a listener that receives each batch after its forward pass.

    Raises:
        ValueError: if a layer does not run exactly once, or its activations are not one finite row for each sample.
    """
    asked: dict[_Key, list[Request]] = {}
    for one in requests:
        asked.setdefault((one.layer, one.axis), []).extend(one.requests)
    run = partial(_pooled, forward_func, list(asked), batches, at_input=at_input, element=element)
    sums: dict[_Key, list[UnitStatistics]] = {}
    shapes: dict[_Key, tuple[torch.Size, ...]] = {}
    for batch, pooled in run(on_output or {}):
        for key, parts in pooled.items():
            if key not in sums:
                sums[key] = [UnitStatistics(asked[key], layer_name(forward_func, key[0])) for _ in parts]
                shapes[key] = tuple(part.shape for part in parts)
            for total, part in zip(sums[key], parts, strict=True):
                total.add(part)
        if on_batch is not None:
            on_batch(batch)
    waiting = {total for totals in sums.values() for total in totals if total.needs_second_pass()}
    for _, pooled in run({}) if waiting else ():
        for key, parts in pooled.items():
            for total, part in zip(sums[key], parts, strict=True):
                if total in waiting:
                    total.add_again(part)
    found = {key: [total.statistics() for total in totals] for key, totals in sums.items()}
    return [_answer(one, shapes[one.layer, one.axis], found[one.layer, one.axis]) for one in requests]


_Key = tuple[nn.Module, UnitAxis]
"""One set of units: those of a layer along an axis."""


def _pooled(
    forward_func: ForwardFunc,
    keys: Sequence[_Key],
    batches: Iterable[Batch],
    listeners: Mapping[nn.Module, Callable[[Tensor], None]],
    *,
    at_input: bool,
    element: int | None,
) -> Iterator[tuple[Batch, dict[_Key, list[PooledBatch]]]]:
    """Yield each batch with the pooled tensors of each key, not checked, float64 only if positions are averaged."""
    axes: dict[nn.Module, list[UnitAxis]] = {}
    for layer, axis in keys:
        axes.setdefault(layer, []).append(axis)
    takes = [partial(_take, own, [Rows() for _ in own], listeners.get(layer)) for layer, own in axes.items()]
    for batch, taken in activations(forward_func, list(axes), batches, takes, at_input=at_input, element=element):
        yield (
            batch,
            {
                (layer, axis): [PooledBatch(part[k][0], batch.target, *part[k][1:]) for part in parts]
                for (layer, own), parts in zip(axes.items(), taken, strict=True)
                for k, axis in enumerate(own)
            },
        )


def _take(
    axes: Sequence[UnitAxis], memory: Sequence[Rows], listener: Callable[[Tensor], None] | None, part: Tensor
) -> list[tuple[Tensor, int, torch.Size]]:
    """Return for each axis the pooled values of a tensor, the number of positions, and its shape."""
    if listener is not None:
        listener(part)
    return [
        (axis.pool(part) if axis.averages(part) else rows.copy(part), axis.positions(part.shape), part.shape)
        for axis, rows in zip(axes, memory, strict=True)
    ]


def _answer(
    one: LayerRequest, shapes: tuple[torch.Size, ...], statistics: list[dict[Request, Statistic]]
) -> LayerStatistics:
    return LayerStatistics(shapes, tuple(tuple(by_request[r] for r in one.requests) for by_request in statistics))
