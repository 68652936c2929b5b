"""Probe a model with NaN for some units of a layer, and see which products of weights they arrive at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
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

MULTIPLIES = frozenset(
    {"matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "addmm", "addmv", "addbmm", "baddbmm", "einsum"}
    | {"tensordot", "inner", "dot", "linear", "bilinear", "mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"}
)
"""Functions in which a matrix of weights mixes units, if it is not recognised as a product of one."""


@dataclass
class Pass:
    """Findings of one forward pass: ``products``, the channels of their inputs that were NaN, and at the layer.

    ``before`` counts the products before the layer's tensor; ``strange`` names other functions with weights that
    NaN went into; ``at_output`` are the NaN among the outputs, ``values`` the inputs of the products.
    """

    products: list[Product]
    seen: list[Tensor]
    strange: set[str]
    before: int = 0
    at_layer: Tensor | None = None
    at_output: Tensor | None = None
    values: list[Tensor] = field(default_factory=list)


@dataclass
class Probe:
    """Runs the model on one sample with some units NaN: those of the layer, or of the product ``producer``."""

    forward_func: ForwardFunc
    layer: nn.Module
    axis: UnitAxis
    batch: Batch
    at_input: bool
    part: int
    producer: int | None = None
    units: int = 0
    compared: Pass | None = None
    sign: float = 1.0

    @property
    def name(self) -> str:
        """The layer's name."""
        return layer_name(self.forward_func, self.layer)

    def run(self, bit: int | None, complement: bool = False) -> Pass:
        """Run with the units NaN that have ``bit`` in their number (or have it not), or without NaN."""
        seen = Pass([], [], set())
        choose = None if bit is None else partial(_with_bit, bit, complement)
        with _at(self.layer, self.at_input, self.part, partial(self._see, seen, choose)), Watch(self, seen, choose):
            try:
                seen.at_output = _nan_of(call(self.forward_func, self.batch))
            except Exception as error:
                raise ValueError(
                    f"the units of layer {self.name!r} could not be followed through the model with NaN "
                    f"for some of them: {error}"
                ) from error
        return seen

    def _see(self, seen: Pass, choose: Callable[[int], Tensor] | None, tensor: Tensor) -> Tensor:
        seen.before = len(seen.products)
        self.units = self.axis.count(tensor.shape)
        nan = tensor.isnan()
        for dim, size in enumerate(self.axis.shape(tensor.shape)):
            nan = nan.any(dim, keepdim=True) if size == 1 else nan
        seen.at_layer = nan.flatten()
        if self.compared is not None:  # far enough that a threshold lets pass what it stopped, or the reverse
            return tensor + self.sign * (1 + 2 * tensor.abs().max())
        if choose is None or self.producer is not None:
            return tensor.clone()
        mask = self.axis.spread(choose(self.units)[None], tensor.shape).to(tensor.device)
        return tensor.masked_fill(mask, torch.nan)


def _nan_of(outputs: Any) -> Tensor:
    """Return which of the numbers that a model returns are NaN for some sample, ``[numbers]``."""
    leaves = [x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.is_floating_point()]
    masks = [x.isnan().any(0).flatten() if x.ndim else x.isnan().flatten() for x in leaves]
    return torch.cat([mask.cpu() for mask in masks]) if masks else torch.zeros(1, dtype=torch.bool)


def _with_bit(bit: int, complement: bool, units: int) -> Tensor:
    return ((torch.arange(units) >> bit) & 1).bool() ^ complement


class Watch(TorchFunctionMode):
    """Notes NaN that goes into products with weights, and stops it there."""

    def __init__(self, probe: Probe, seen: Pass, choose: Callable[[int], Tensor] | None) -> None:
        super().__init__()
        self.probe, self.seen, self.choose = probe, seen, choose
        model = probe.forward_func
        parameters = model.parameters() if isinstance(model, nn.Module) else ()
        self.weights = {p.untyped_storage().data_ptr() for p in parameters if p.ndim > 1}

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
        if self.probe.compared is not None:
            return self._compared(func, args, kwargs, value, others)
        self.seen.seen.append(value.isnan().any(others) if others else value.isnan())
        if self.choose is None:
            self.seen.values.append(value.detach().clone())
        stopped = value.nan_to_num(nan=0.0)
        args = tuple(stopped if a is value else a for a in args)
        result = func(*args, **{k: stopped if v is value else v for k, v in kwargs.items()})
        if self.choose is None or number != self.probe.producer:
            return result
        axis = UnitAxis(product.channel_dim)
        mask = axis.spread(self.choose(result.shape[product.channel_dim])[None], result.shape)
        return result.masked_fill(mask.to(result.device), torch.nan)

    def _compared(self, func: Any, args: Any, kwargs: Any, value: Tensor, others: list[int]) -> Any:
        """Note which channels of a product's input are not those of the clean pass, and go on with the clean ones."""
        assert self.probe.compared is not None
        known, number = self.probe.compared.values, len(self.seen.seen)
        clean = known[number] if number < len(known) and known[number].shape == value.shape else value
        changed = value != clean
        self.seen.seen.append(changed.any(others) if others else changed)
        args = tuple(clean if a is value else a for a in args)
        return func(*args, **{k: clean if v is value else v for k, v in kwargs.items()})

    def _note_strange(self, func: Any, args: Any, kwargs: Any) -> None:
        """Note a function that multiplies NaN with a matrix of weights, in whatever view it comes."""
        name = getattr(func, "__name__", str(func))
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        weights = [leaf for leaf in leaves if self._is_weight(leaf, name)]
        if weights:
            values = [x for x in leaves if x.is_floating_point() and not any(x is w for w in weights)]
            if any(bool(x.isnan().any()) for x in values):
                self.seen.strange.add(name)

    def _is_weight(self, tensor: Tensor, name: str) -> bool:
        if isinstance(tensor, nn.Parameter) and tensor.ndim == 2:
            return True
        if name not in MULTIPLIES or sum(size > 1 for size in tensor.shape) < 2:
            return False
        return tensor.untyped_storage().data_ptr() in self.weights


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
