"""Norms of the weights that a layer's units go into, found by sending NaN through the model and seeing where it goes.

A unit that is NaN makes NaN of every value that depends on it, whatever lies between: activations, batch norm,
pooling, flattening, concatenation, skip connections. Units are numbered in binary, so that a layer of U units takes
about 2 log2 U forward passes of one sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.model import ForwardFunc, layer_name
from captum_ablate.inputs.threads import of_own_pass
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.layer_tensors import layer_inputs
from captum_ablate.statistics.products import Product, hides_nan, product_of


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
        probe = _Probe(forward_func, layer, axis, batch.take(slice(1)), at_input, part)
        try:
            clean = probe.run(None)
        except ValueError:  # a model made for one batch size
            probe = replace(probe, batch=batch)
            clean = probe.run(None)
        bits = _bits(probe.units)
        passes = [(probe.run(bit), probe.run(bit, complement=True)) for bit in range(bits)]
        calls = [_Arrivals.of([(a.seen[k], b.seen[k]) for a, b in passes]) for k in range(len(clean.seen))]
        if any(arrivals.any for arrivals in calls):
            for product, arrivals in zip(clean.products, calls, strict=True):
                if arrivals.mixed:
                    raise ValueError(
                        f"the units of layer {probe.name!r} are mixed before they reach the next weights "
                        f"({product.words}), by a normalisation over units, attention or a sum over units, so no "
                        "weight is of one unit alone; name a layer whose next module is Linear or Conv"
                    )
            found = [(p.weight, p.columns(), arrivals) for p, arrivals in zip(clean.products, calls, strict=True)]
            return WeightNorms(_norms(found, probe.units), "outgoing")
        strange = {name for a, b in passes for name in (*a.strange, *b.strange)}
        if strange:
            raise ValueError(
                f"the units of layer {probe.name!r} go into {', '.join(sorted(strange))}, whose weights belong to no "
                "unit alone; outgoing weights are those of Linear and Conv modules"
            )
        return WeightNorms(_incoming(probe, clean), "incoming")


def _incoming(probe: _Probe, clean: _Pass) -> Tensor:
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


@dataclass
class _Pass:
    """Findings of one forward pass: ``products``, the channels of their inputs that were NaN, and at the layer.

    ``before`` counts the products before the layer's tensor; ``strange`` names other functions with weights that
    NaN went into.
    """

    products: list[Product]
    seen: list[Tensor]
    strange: set[str]
    before: int = 0
    at_layer: Tensor | None = None


@dataclass
class _Probe:
    """Runs the model on one sample with some units NaN: those of the layer, or of the product ``producer``."""

    forward_func: ForwardFunc
    layer: nn.Module
    axis: UnitAxis
    batch: Batch
    at_input: bool
    part: int
    producer: int | None = None
    units: int = 0

    @property
    def name(self) -> str:
        """The layer's name."""
        return layer_name(self.forward_func, self.layer)

    def run(self, bit: int | None, complement: bool = False) -> _Pass:
        """Run with the units NaN that have ``bit`` in their number (or have it not), or without NaN."""
        seen = _Pass([], [], set())
        choose = None if bit is None else partial(_with_bit, bit, complement)
        with _at(self.layer, self.at_input, self.part, partial(self._see, seen, choose)), _Watch(self, seen, choose):
            try:
                call(self.forward_func, self.batch)
            except Exception as error:
                raise ValueError(
                    f"the units of layer {self.name!r} could not be followed through the model with NaN "
                    f"for some of them: {error}"
                ) from error
        return seen

    def _see(self, seen: _Pass, choose: Callable[[int], Tensor] | None, tensor: Tensor) -> Tensor:
        seen.before = len(seen.products)
        self.units = self.axis.count(tensor.shape)
        nan = tensor.isnan()
        for dim, size in enumerate(self.axis.shape(tensor.shape)):
            nan = nan.any(dim, keepdim=True) if size == 1 else nan
        seen.at_layer = nan.flatten()
        if choose is None or self.producer is not None:
            return tensor.clone()
        mask = self.axis.spread(choose(self.units)[None], tensor.shape).to(tensor.device)
        return tensor.masked_fill(mask, torch.nan)


def _with_bit(bit: int, complement: bool, units: int) -> Tensor:
    return ((torch.arange(units) >> bit) & 1).bool() ^ complement


class _Watch(TorchFunctionMode):
    """Notes NaN that goes into products with weights, and stops it there."""

    def __init__(self, probe: _Probe, seen: _Pass, choose: Callable[[int], Tensor] | None) -> None:
        super().__init__()
        self.probe, self.seen, self.choose = probe, seen, choose

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = product_of(func, args, kwargs)
        if found is None:
            self._note_strange(func, args, kwargs)
            result = func(*args, **kwargs)
            return result * torch.nan if hides_nan(func, args, kwargs) else result
        product, value = found
        others = [d for d in range(value.ndim) if d != product.channel_dim % value.ndim]
        number = len(self.seen.products)
        self.seen.products.append(product)
        self.seen.seen.append(value.isnan().any(others) if others else value.isnan())
        stopped = value.nan_to_num(nan=0.0)
        args = tuple(stopped if a is value else a for a in args)
        result = func(*args, **{k: stopped if v is value else v for k, v in kwargs.items()})
        if self.choose is None or number != self.probe.producer:
            return result
        axis = UnitAxis(product.channel_dim)
        mask = axis.spread(self.choose(result.shape[product.channel_dim])[None], result.shape)
        return result.masked_fill(mask.to(result.device), torch.nan)

    def _note_strange(self, func: Any, args: Any, kwargs: Any) -> None:
        leaves = tree_leaves((args, kwargs))
        if any(isinstance(leaf, nn.Parameter) and leaf.ndim == 2 for leaf in leaves):
            values = [x for x in leaves if isinstance(x, Tensor) and not isinstance(x, nn.Parameter)]
            if any(x.is_floating_point() and bool(x.isnan().any()) for x in values):
                self.seen.strange.add(getattr(func, "__name__", str(func)))


@contextmanager
def _at(layer: nn.Module, at_input: bool, part: int, see: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Put ``see(tensor)`` in the place of tensor ``part`` of the layer's output (or input)."""
    if at_input:

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            new = _replaced(layer_inputs(args, kwargs), part, see)
            return tuple(new[: len(args)]), dict(zip(kwargs, new[len(args) :], strict=True))

        handle = layer.register_forward_pre_hook(of_own_pass(before), with_kwargs=True)
    else:
        handle = layer.register_forward_hook(of_own_pass(lambda _, __, output: _output(output, part, see)))
    try:
        yield
    finally:
        handle.remove()


def _output(output: Any, part: int, see: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(output, Tensor):
        return see(output)
    new = _replaced(output, part, see)
    return type(output)(*new) if hasattr(output, "_fields") else type(output)(new)


def _replaced(values: Any, part: int, see: Callable[[Tensor], Tensor]) -> list[Any]:
    """Return ``values`` with their tensor number ``part`` replaced."""
    new, places = list(values), [k for k, value in enumerate(values) if isinstance(value, Tensor)]
    new[places[part]] = see(new[places[part]])
    return new
