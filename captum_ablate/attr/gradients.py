"""Activation times the gradient of the loss, summed over positions, in one pass over the data with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate.ablation.metrics import check_labels, class_outputs, log_likelihood
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.model import ForwardFunc, layer_name
from captum_ablate.inputs.quantised import refuse_gradients_of_quantised
from captum_ablate.inputs.resamples import ResampledBatches
from captum_ablate.inputs.threads import of_own_pass
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.activation_checks import check_activations, check_calls
from captum_ablate.statistics.activations import output_shapes
from captum_ablate.statistics.collect import LayerStatistics
from captum_ablate.statistics.layer_tensors import layer_inputs, tensor_parts
from captum_ablate.statistics.pooled import PooledBatch
from captum_ablate.statistics.requests import MomentsRequest, Statistic
from captum_ablate.statistics.unit_statistics import UnitStatistics


def gate_gradients(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module],
    axis: UnitAxis,
    batches: Iterable[Batch],
    tick: Callable[[int], None],
    *,
    at_input: bool,
) -> list[LayerStatistics]:
    """Return for each layer the ``ClassMoments`` of the loss's gradient with respect to a gate on each unit.

    The loss of a sample is the cross entropy of its label. A gate is a factor of 1: its gradient is the sum over
    positions of activation times gradient. The part before the first layer runs without gradients. ``tick`` hears the
    samples of each batch. ``ResampledBatches`` are summed up for each resample, too.

    Raises:
        ValueError: as ``collect``; or the model's outputs are not those of classes.
    """
    names, request = [layer_name(forward_func, layer) for layer in layers], MomentsRequest()
    totals: list[list[UnitStatistics]] = []
    shapes: list[tuple[torch.Size, ...]] = []
    numbers: list[tuple[int, ...]] = []
    for number, batch in enumerate(batches):
        if number == 0:
            refuse_gradients_of_quantised(forward_func, "the gradient of the loss")
            by_number = output_shapes(forward_func, layers, [batch], axis, at_input=at_input)
            numbers = [tuple(one) for one in by_number]
            shapes = [tuple(one.values()) for one in by_number]
        values = _of_batch(forward_func, layers, names, axis, batch, number, at_input, numbers)
        target = batch.target.cpu()
        if not all(bool(part.isfinite().all()) for parts in values for part in parts):
            raise ValueError(
                f"the gradient of the loss is NaN or infinite in batch {number}; check the outputs of the model"
            )
        weights = batches.batch_weights if isinstance(batches, ResampledBatches) else None
        if not totals:
            totals = [
                [UnitStatistics([request], name) for _ in parts] for name, parts in zip(names, values, strict=True)
            ]
        for old, new in zip(totals, values, strict=True):
            for total, part in zip(old, new, strict=True):
                total.add(PooledBatch(part, target, 1, part.shape, weights=weights))
        tick(len(target))
    found = []
    for own, sums in zip(shapes, totals, strict=True):
        statistics = tuple((total.statistics()[request],) for total in sums)
        of_resample = partial(_of_resample, sums) if isinstance(batches, ResampledBatches) else None
        found.append(LayerStatistics(own, statistics, of_resample))
    return found


def _of_resample(totals: Sequence[UnitStatistics], number: int) -> tuple[tuple[Statistic, ...], ...]:
    return tuple(tuple(total.of_resample(number).values()) for total in totals)


def _of_batch(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module],
    names: Sequence[str],
    axis: UnitAxis,
    batch: Batch,
    number: int,
    at_input: bool,
    numbers: Sequence[tuple[int, ...]],
) -> list[list[Tensor]]:
    """Return for each layer the products of the tensors of these ``numbers``, float64 ``[n, units]`` on the CPU."""
    with torch.enable_grad(), _ends(layers, names, at_input) as calls:
        outputs: Any = class_outputs(call(forward_func, batch))
        for layer, name, own in zip(layers, names, calls, strict=True):
            check_calls(forward_func, layer, name, len(own), partial(call, forward_func, batch))
        parts = [[own[0][k] for k in wanted] for own, wanted in zip(calls, numbers, strict=True)]
        for name, of_layer in zip(names, parts, strict=True):
            if not any(map(_has_gradient, of_layer)):
                raise ValueError(
                    f"layer {name!r} has activations without a gradient ({of_layer[0].dtype}); name a layer with "
                    "floating activations, or measure the units with LayerUnitAblation"
                )
            for part in of_layer:
                check_activations(axis.pool(part, batch.position_mask), len(batch.target), name, number)
        check_labels(log_likelihood, outputs, batch.target)
        loss = -log_likelihood(outputs, batch.target).sum()
        wanted = [part for of_layer in parts for part in of_layer if part.requires_grad]
        found: dict[int, Tensor | None] = {}
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
            found = {id(part): gradient for part, gradient in zip(wanted, gradients, strict=True)}
    return [[_product(axis, part, found.get(id(part)), batch.position_mask) for part in of_layer] for of_layer in parts]


def _has_gradient(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _product(axis: UnitAxis, part: Tensor, gradient: Tensor | None, mask: Tensor | None) -> Tensor:
    if gradient is None:  # the outputs do not depend on it
        return axis.total(part, mask).cpu().to(torch.float64) * 0
    product = part.detach() * gradient
    if part.is_complex():  # a gate is real
        product = (part.detach().conj() * gradient).real
    return axis.total(product, mask).cpu().to(torch.float64)


@contextmanager
def _ends(layers: Sequence[nn.Module], names: Sequence[str], at_input: bool) -> Iterator[list[list[list[Tensor]]]]:
    """Make the tensors of the layers ends of differentiation; yield them, by layer and call."""
    calls: list[list[list[Tensor]]] = [[] for _ in layers]

    connected = len(layers) > 1  # a layer after another one passes gradients on to it

    def end(value: Any, kept: list[Tensor]) -> Any:
        if not isinstance(value, Tensor):
            return value
        if _has_gradient(value) and not (connected and value.requires_grad):
            value = value.detach().requires_grad_()
        kept.append(value)
        return value.clone()  # later operations may write into it

    def at_output(name: str, own: list[list[Tensor]], _: nn.Module, __: Any, output: Any) -> Any:
        tensor_parts(output, name)
        own.append([])
        if isinstance(output, Tensor):
            return end(output, own[-1])
        new = [end(value, own[-1]) for value in output]
        return type(output)(*new) if hasattr(output, "_fields") else type(output)(new)

    def before(name: str, own: list[list[Tensor]], _: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        tensor_parts(layer_inputs(args, kwargs), name)
        own.append([])
        new = tuple(end(value, own[-1]) for value in args)
        return new, {key: end(value, own[-1]) for key, value in kwargs.items()}

    handles = []
    try:
        for layer, name, own in zip(layers, names, calls, strict=True):
            if at_input:
                handles.append(
                    layer.register_forward_pre_hook(of_own_pass(partial(before, name, own)), with_kwargs=True)
                )
            else:
                handles.append(layer.register_forward_hook(of_own_pass(partial(at_output, name, own))))
        yield calls
    finally:
        for handle in handles:
            handle.remove()
