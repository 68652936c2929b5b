"""Norms of the weights that a layer's units go into, found by sending NaN through the model and seeing where it goes.

A unit that is NaN makes NaN of every value that depends on it, whatever lies between: activations, batch norm,
pooling, flattening, concatenation, skip connections. Units are numbered in binary, so that a layer of U units takes
about 2 log2 U forward passes of one sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.model import ForwardFunc
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.nan_probe import Pass, Probe


@dataclass(frozen=True)
class WeightNorms:
    """L2 norm of the weights of each unit; ``kind`` is "outgoing" or "incoming"."""

    found: Tensor | ValueError
    kind: str = ""

    @classmethod
    def of(
        cls, forward_func: ForwardFunc, layer: nn.Module, axis: UnitAxis, batch: Batch, *, at_input: bool, part: int
    ) -> WeightNorms:
        """Return the norms for the units of tensor ``part`` of a layer's output (or input), or why there are none."""
        try:
            return weight_norms(forward_func, layer, axis, batch, at_input=at_input, part=part)
        except ValueError as error:
            return cls(error)

    @property
    def values(self) -> Tensor:
        """The norms, float64 ``[units]``; raises if they could not be found."""
        if isinstance(self.found, ValueError):
            raise self.found
        return self.found


def weight_norms(
    forward_func: ForwardFunc, layer: nn.Module, axis: UnitAxis, batch: Batch, *, at_input: bool, part: int
) -> WeightNorms:
    """Return the norms for the units of tensor ``part`` of a layer's output (or input).

    ``LayerWeightNorm`` says which weights count.

    Raises:
        ValueError: if the weights mix units before they meet any, or none are found.
    """
    with torch.no_grad():
        probe = Probe(forward_func, layer, axis, batch.take(slice(1)), at_input, part)
        try:
            clean = probe.run(None)
        except ValueError:  # a model made for one batch size
            probe = replace(probe, batch=batch)
            clean = probe.run(None)
        bits = _bits(probe.units)
        passes = [(probe.run(bit), probe.run(bit, complement=True)) for bit in range(bits)]
        calls = [_Arrivals.of([(a.seen[k], b.seen[k]) for a, b in passes]) for k in range(len(clean.seen))]
        at_output = _Arrivals.of([(a.at_output, b.at_output) for a, b in passes])
        for product, arrivals in zip(clean.products, calls, strict=True):
            if arrivals.mixed:
                raise ValueError(
                    f"the units of layer {probe.name!r} are mixed before they reach the next weights "
                    f"({product.words}), by a normalisation over units, attention or a sum over units, so no "
                    "weight is of one unit alone; name a layer whose next module is Linear or Conv"
                )
        _check_paths(probe, clean, passes, calls)
        if any(arrivals.any for arrivals in calls):
            found = [(p.weight, p.columns(), arrivals) for p, arrivals in zip(clean.products, calls, strict=True)]
            return WeightNorms(_norms(found, probe.units), "outgoing")
        if not at_output.any:
            raise ValueError(
                f"the units of layer {probe.name!r} reach neither weights nor the outputs that can be followed, so no "
                "weight is known to be of one unit; name a layer whose next module is Linear or Conv"
            )
        return WeightNorms(_incoming(probe, clean), "incoming")


def _check_paths(
    probe: Probe,
    clean: Pass,
    passes: list[tuple[Pass, Pass]],
    calls: list[_Arrivals],
) -> None:
    """Raise if units also meet weights that belong to no unit alone, or reach products by a way that NaN does not show.

    Operations such as ``torch.where`` hide NaN: there the input of a product moves when the units are moved, and NaN
    does not arrive.
    """
    strange = {name for a, b in passes for name in (*a.strange, *b.strange)}
    if strange:
        raise ValueError(
            f"the units of layer {probe.name!r} go into {', '.join(sorted(strange))}, whose weights belong to no "
            "unit alone; outgoing weights are those of Linear and Conv modules"
        )
    for sign in (1.0, -1.0):
        moved = replace(probe, compared=clean, sign=sign).run(None).seen
        if len(moved) != len(calls):
            raise ValueError(
                f"which weights the model uses depends on the units of layer {probe.name!r}, so no weight is known to "
                "be of one unit"
            )
        for product, changed, arrivals in zip(clean.products, moved, calls, strict=True):
            if bool((changed.cpu() & (arrivals.origin < 0)).any()):
                raise ValueError(
                    f"the units of layer {probe.name!r} reach {product.words} through an operation that hides which of "
                    "them it depends on, such as torch.where, a comparison or a conversion, so no weight is known to "
                    "be of one unit; name a layer whose next module is Linear or Conv"
                )


def _incoming(probe: Probe, clean: Pass) -> Tensor:
    """Return the norms of the weights that make the units: those of the last product before the layer's tensor."""
    product = clean.products[clean.before - 1] if clean.before else None
    if product is None:
        raise ValueError(
            f"layer {probe.name!r} has no Linear or Conv module after it or before it, so its units have no weights"
        )
    rows = product.rows()
    source = replace(probe, producer=clean.before - 1)
    passes = [(source.run(bit), source.run(bit, complement=True)) for bit in range(_bits(len(rows)))]
    arrivals = _Arrivals.of([(a.at_layer, b.at_layer) for a, b in passes])
    if arrivals.mixed or bool((arrivals.origin < 0).any()):
        raise ValueError(
            f"layer {probe.name!r} has no Linear or Conv module after it, and its units do not each come from one "
            f"output of the last weights before it ({product.words})"
        )
    groups = torch.arange(len(arrivals.origin)) if probe.axis.groups is None else torch.tensor(probe.axis.groups)
    own = torch.unique(torch.stack([groups, arrivals.origin]), dim=1)  # a weight counts once for a unit
    return rows.new_zeros(probe.units).index_add(0, own[0], rows[own[1]]).sqrt()


def _norms(found: list[tuple[Tensor, Tensor, _Arrivals]], units: int) -> Tensor:
    """Return the norm of all columns that each unit arrives at; weights used twice count once."""
    squares = torch.zeros(units, dtype=torch.float64)
    by_weight: dict[tuple[int, torch.Size], tuple[Tensor, list[Tensor]]] = {}
    for weight, columns, arrivals in found:
        column = (arrivals.origin >= 0).nonzero().flatten()
        _, pairs = by_weight.setdefault((weight.data_ptr(), weight.shape), (columns, []))
        pairs.append(torch.stack([arrivals.origin[column], column]))
    for columns, pairs in by_weight.values():
        unit, column = torch.unique(torch.cat(pairs, dim=1), dim=1)
        squares.index_add_(0, unit, columns[column])
    return squares.sqrt()


def _bits(units: int) -> int:
    return max(1, (units - 1).bit_length())


@dataclass(frozen=True)
class _Arrivals:
    """Unit that each channel depends on, ``origin [channels]``, -1 for none; ``mixed``, if any has several."""

    origin: Tensor
    mixed: bool

    @classmethod
    def of(cls, seen: list[tuple[Any, Any]]) -> _Arrivals:
        """Decode, bit by bit, the NaN ``[channels]`` of the units that have the bit, and of those that have not."""
        ones, zeros = (torch.stack(one).cpu() for one in zip(*seen, strict=True))  # [bits, channels]
        reached = (ones | zeros).any(0)
        alone = (ones ^ zeros).all(0)
        number = (ones.long() << torch.arange(len(ones))[:, None]).sum(0)
        return cls(torch.where(alone, number, -1), bool((reached & ~alone).any()))

    @property
    def any(self) -> bool:
        """Tell whether any channel depends on a unit."""
        return self.mixed or bool((self.origin >= 0).any())
