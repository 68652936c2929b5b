"""Average activations over positions to ``[n, units]``, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.model import ForwardFunc, layer_name
from captum_ablate.inputs.targets import classes_or_zeros
from captum_ablate.inputs.units import UnitAxis, check_same_units
from captum_ablate.statistics.activation_checks import check_activations, refuse_complex
from captum_ablate.statistics.activations import activations


class PooledBatch(NamedTuple):
    """Pooled activations of a batch: ``values [n, units]``, ``target [n]``, the number of positions averaged.

    ``shape`` and ``dtype`` are those of the tensor before pooling. Values lie on any device; they are float64, or of
    the layer's own type if nothing was averaged. ``weights [n, resamples]`` say how often each resample holds a sample.
    """

    values: Tensor
    target: Tensor
    positions: int
    shape: torch.Size
    dtype: torch.dtype = torch.float64
    weights: Tensor | None = None


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
    take, axes, units = partial(_pool, axis), [[axis]] * len(layers), list[int]()
    passes = activations(forward_func, layers, batches, take, at_input=at_input, masked=True, axes=axes)
    for number, (batch, taken) in enumerate(passes):
        target = classes_or_zeros(batch.target).cpu()
        units = units or [parts[0][0].shape[1] for parts in taken]
        for name, parts, own_units in zip(names, taken, units, strict=True):
            check_same_units(own_units, parts[0][0].shape[1])
            for values, *_ in parts:
                refuse_complex(values, name)
                check_activations(values, len(target), name, number)
        yield [[PooledBatch(values.double(), target, *rest) for values, *rest in parts] for parts in taken]


def _pool(axis: UnitAxis, part: Tensor, mask: Tensor | None = None) -> tuple[Tensor, int, torch.Size, torch.dtype]:
    return axis.pool(part, mask).cpu(), axis.positions(part.shape), part.shape, part.dtype
