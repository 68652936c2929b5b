"""Collect the statistics that several scores request, in one pass over the data; others may listen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.model import ForwardFunc, layer_name
from captum_ablate.inputs.resamples import ResampledBatches
from captum_ablate.inputs.targets import classes_or_zeros
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.activations import activations
from captum_ablate.statistics.chunks import Rows
from captum_ablate.statistics.pooled import PooledBatch
from captum_ablate.statistics.requests import Request, Statistic, WeightNormsRequest, is_squared
from captum_ablate.statistics.unit_statistics import UnitStatistics
from captum_ablate.statistics.weight_norms import WeightNorms


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
    """The answer, for each tensor of the layer's output: its shape in the first batch, and the statistics.

    ``of_resample(number)`` returns the statistics of a resample, if the batches have resamples.
    """

    shapes: tuple[torch.Size, ...]
    statistics: tuple[tuple[Statistic, ...], ...]
    of_resample: Callable[[int], tuple[tuple[Statistic, ...], ...]] | None = None


def collect(
    forward_func: ForwardFunc,
    requests: Sequence[LayerRequest],
    batches: Iterable[Batch],
    *,
    at_input: bool = False,
    element: int | None = None,
    on_output: Mapping[nn.Module, Callable[..., None]] | None = None,
    on_batch: Callable[[Batch], None] | None = None,
) -> list[LayerStatistics]:
    """Return the statistics of each request, from one pass over ``batches``.

    The same layer with the same units is pooled once, and the same request counted once. A second pass is made only
    for histograms whose edges depend on the range of the data, and only if the activations exceed ``TABLE_BYTES``.
    Listeners hear the first pass only; ``collect`` raises what they raise. ``ResampledBatches`` are summed up for each
    resample, too: bin edges are those of all samples.

    Args:
        forward_func: the model, or a function that runs it.
        requests: one for each score and layer.
        batches: iterated once, or twice as said above.
        at_input: look at the inputs of the layers, not at their outputs.
        element: look only at this tensor of every output; None looks at all.
        on_output: a listener for each layer. It receives each tensor that is looked at, raw ``[n, ...]``, inside the
            forward pass: it must copy what it keeps, because later operations may write into the tensor.
            A batch's ``position_mask``, if it has one, is the second argument.
        on_batch: a listener that receives each batch after its forward pass.

    Raises:
        ValueError: if a layer does not run exactly once, or its activations are not one finite row for each sample.
    """
    asked: dict[_Key, list[Request]] = {}
    for one in requests:
        for key, own in _by_key(one).items():
            asked.setdefault(key, []).extend(own)
    run = partial(_pooled, forward_func, list(asked), batches, at_input=at_input, element=element)
    sums: dict[_Key, list[UnitStatistics]] = {}
    shapes: dict[_Key, tuple[torch.Size, ...]] = {}
    norms: dict[_Key, list[WeightNorms]] = {}
    for batch, pooled in run(on_output or {}):
        for key, parts in pooled.items():
            if key not in sums:
                sums[key] = [UnitStatistics(asked[key], layer_name(forward_func, key[0])) for _ in parts]
                shapes[key] = tuple(part.shape for part in parts)
                if WeightNormsRequest() in asked[key]:
                    places = range(len(parts)) if element is None else [element]
                    look = partial(WeightNorms.of, forward_func, *key[:2], batch, at_input=at_input)
                    norms[key] = [look(part=k) for k in places]
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
    for key, own_norms in norms.items():
        for statistics, one_norm in zip(found[key], own_norms, strict=True):
            statistics[WeightNormsRequest()] = one_norm
    answers = [_answer(one, shapes, found) for one in requests]
    if not isinstance(batches, ResampledBatches):
        return answers

    def of_resample(request: LayerRequest, number: int) -> tuple[tuple[Statistic, ...], ...]:
        resampled = {
            key: [{**found[key][k], **total.of_resample(number)} for k, total in enumerate(sums[key])]
            for key in _by_key(request)
        }
        return _answer(request, shapes, resampled).statistics

    pairs = zip(requests, answers, strict=True)
    return [replace(answer, of_resample=partial(of_resample, one)) for one, answer in pairs]


_Key = tuple[nn.Module, UnitAxis, bool]
"""One set of values: the units of a layer along an axis; whether squares are summed."""


def _by_key(one: LayerRequest) -> dict[_Key, list[Request]]:
    """Return the requests by the values that they are of; without any the values are only checked."""
    keys: dict[_Key, list[Request]] = {}
    for request in one.requests:
        keys.setdefault((one.layer, one.axis, is_squared(request)), []).append(request)
    return keys or {(one.layer, one.axis, False): []}


def _pooled(
    forward_func: ForwardFunc,
    keys: Sequence[_Key],
    batches: Iterable[Batch],
    listeners: Mapping[nn.Module, Callable[..., None]],
    *,
    at_input: bool,
    element: int | None,
) -> Iterator[tuple[Batch, dict[_Key, list[PooledBatch]]]]:
    """Yield each batch with the pooled tensors of each key, not checked, float64 only if positions are averaged."""
    axes: dict[nn.Module, list[tuple[UnitAxis, bool]]] = {}
    for layer, axis, squared in keys:
        axes.setdefault(layer, []).append((axis, squared))
    takes = [partial(_take, own, [Rows() for _ in own], listeners.get(layer)) for layer, own in axes.items()]
    for batch, taken in activations(
        forward_func,
        list(axes),
        batches,
        takes,
        at_input=at_input,
        element=element,
        masked=True,
        axes=[list(dict.fromkeys(axis for axis, _ in own)) for own in axes.values()],
    ):
        target = classes_or_zeros(batch.target)
        weights = batches.batch_weights if isinstance(batches, ResampledBatches) else None
        yield (
            batch,
            {
                (layer, axis, squared): [
                    PooledBatch(part[k][0], target, *part[k][1:])._replace(weights=weights) for part in parts
                ]
                for (layer, own), parts in zip(axes.items(), taken, strict=True)
                for k, (axis, squared) in enumerate(own)
            },
        )


def _take(
    axes: Sequence[tuple[UnitAxis, bool]],
    memory: Sequence[Rows],
    listener: Callable[..., None] | None,
    part: Tensor,
    mask: Tensor | None = None,
) -> list[tuple[Tensor, int, torch.Size, torch.dtype]]:
    """Return for each axis the pooled values of a tensor, the number of positions, and its shape."""
    if listener is not None:
        listener(part) if mask is None else listener(part, mask)
    return [
        (_values(axis, squared, rows, part, mask), axis.positions(part.shape), part.shape, part.dtype)
        for (axis, squared), rows in zip(axes, memory, strict=True)
    ]


def _values(axis: UnitAxis, squared: bool, rows: Rows, part: Tensor, mask: Tensor | None) -> Tensor:
    if squared and not part.is_complex():  # complex values are refused where they are added up
        return axis.total_of_squares(part, mask)
    return axis.pool(part, mask) if mask is not None or axis.averages(part) else rows.copy(part)


def _answer(
    one: LayerRequest,
    shapes: Mapping[_Key, tuple[torch.Size, ...]],
    found: Mapping[_Key, list[dict[Request, Statistic]]],
) -> LayerStatistics:
    keys = [(one.layer, one.axis, is_squared(request)) for request in one.requests]
    own = shapes[next(iter(_by_key(one)))]
    statistics = [
        tuple(found[key][k][request] for key, request in zip(keys, one.requests, strict=True)) for k in range(len(own))
    ]
    return LayerStatistics(own, tuple(statistics))
