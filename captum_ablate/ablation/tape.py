"""A tape: a list of operators on slots that runs again without the model's Python code; and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec

from captum_ablate.ablation.effects import leaves_in, signature_of, tensors_in, written_values
from captum_ablate.ablation.slots import Slots, Spec


@dataclass(frozen=True)
class Ref:
    """Stand for a tensor among an operator's arguments."""

    slot: int


@dataclass
class Op:
    """An operator, with ``Ref`` for its tensors, and the slots of its results; or the ablation of site ``site``."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: tuple[int | None, ...]
    site: int | None = None

    @property
    def name(self) -> str:
        """The operator's name without its namespace, such as "convolution"."""
        return "ablate" if self.func is None else name_of(self.func)

    @cached_property
    def reads(self) -> list[int]:
        """The slots that the operator reads."""
        return [ref.slot for ref in leaves_in((self.args, self.kwargs), Ref)]


@dataclass(frozen=True)
class Tape:
    """``ops`` on slots, ``values`` of slots that no ablation reaches, and ``outputs`` as leaves and structure."""

    ops: list[Op]
    values: dict[int, Tensor]
    constants: set[int]
    specs: list[Spec]
    outputs: tuple[list[Any], TreeSpec]
    rows: int


def noted(
    func: Any, reads: tuple[Any, Any], outs: tuple[int | None, ...], targets: list[Tensor], tensors: Any, slots: Slots
) -> list[Op]:
    """Return the tape's operators for one that was called with ``tensors`` and wrote to ``targets``.

    An in-place operator keeps the type of its target. Its functional twin may return another type (``gt``, or ``add``
    of a wider tensor), so a cast follows.
    """
    if not targets:
        return [Op(func, *reads, outs)]
    plain, dtype = functional(func), targets[0].dtype
    alike = all(t.dtype == dtype for t in tensors_in(tensors))
    if alike and dtype.is_floating_point and name_of(plain) not in _OF_OTHER_TYPE:
        return [Op(plain, *reads, outs)]
    between = slots.new(targets[0], slots.levels[outs[0]] if outs[0] is not None else 0)
    return [
        Op(plain, *reads, (between,)),
        Op(torch.ops.aten._to_copy.default, (Ref(between),), {"dtype": dtype}, outs),
    ]


_OF_OTHER_TYPE = frozenset(
    """
    gt ge lt le eq ne greater greater_equal less less_equal not_equal logical_and logical_or logical_xor logical_not
    """.split()  # noqa: SIM905
)

LAYOUTS = ("as_strided", "as_strided_")
"""Operators that depend on where numbers lie in memory."""


def results_of(result: Any) -> list[Any]:
    """Return an operator's results as a list."""
    return list(result) if isinstance(result, (tuple, list)) else [result]


def written_tensors(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """Return the tensors that an operator writes to."""
    values = written_values(signature_of(func)[1], args, kwargs)
    return [t for value in values for t in tensors_in(value)]


def without_layout(func: Any, args: Any, strides: Sequence[int]) -> tuple[Any, Any]:
    """Return the operator and its arguments; an ``as_strided`` that moves no number becomes ``alias``.

    ``strides`` are those of its argument before the call. Pooling channels-last images to one position calls
    ``as_strided``, which would fix the sizes and the memory layout of this one run.
    """
    if name_of(func) in LAYOUTS:
        source, sizes, new = args[:3]
        offset = args[3] if len(args) > 3 and args[3] is not None else source.storage_offset()
        moved = any(n > 1 and a != b for n, a, b in zip(sizes, new, strides, strict=False))
        if tuple(sizes) == source.shape and offset == source.storage_offset() and not moved:
            return torch.ops.aten.alias.default, args[:1]
    return func, args


def is_random(func: Any, args: Any, kwargs: Any) -> bool:
    """Tell whether an operator draws random numbers. Attention does so only with dropout."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    arguments = func._schema.arguments
    given = dict(zip((a.name for a in arguments), args, strict=False)) | kwargs
    return [given.get(a.name, a.default_value) for a in arguments if a.name == "dropout_p"] != [0.0]


def why_not_noted(func: Any, args: Any, kwargs: Any, targets: list[Tensor], leaves: list[Any]) -> str | None:
    """Return why an operator cannot run from a tape, or None if it can."""
    if name_of(func) in LAYOUTS:
        return "as_strided reads memory by its layout"
    if func.namespace not in ("aten", "prims") or name_of(func) == "_pack_padded_sequence":
        return f"{func} may return a shape that depends on numbers"
    is_attention = name_of(func).startswith("_scaled_dot_product")  # the numbers that it returns are lengths
    if not is_attention and not all(isinstance(leaf, Tensor) or leaf is None for leaf in leaves):
        return f"{func} returns Python numbers, or a list of lists"
    if is_random(func, args, kwargs) or torch.Tag.dynamic_output_shape in func.tags:
        return f"{func} is random, or returns a shape that depends on numbers"
    if targets and (len(targets) != 1 or len(leaves) != 1 or leaves[0] is not targets[0] or functional(func) is None):
        return f"{func} writes to memory and has no functional twin"
    return None


def with_refs(value: Any, slot_of: Callable[[Tensor], int]) -> Any:
    """Return an operator's arguments with a ``Ref`` in the place of each tensor."""
    if isinstance(value, (tuple, list)):
        return type(value)(with_refs(x, slot_of) for x in value) if type(value) in (tuple, list) else value
    if isinstance(value, dict):
        return {k: with_refs(x, slot_of) for k, x in value.items()}
    return Ref(slot_of(value)) if isinstance(value, Tensor) else value


def slots_of(func: Any, targets: list[Tensor], leaves: list[Any], slots: Slots, level: int) -> tuple[int | None, ...]:
    """Return the slots of an operator's results, or of what it wrote to."""
    is_view = signature_of(func)[0]
    written = {id(target): slots.written(target, level) for target in targets}
    return tuple(
        None
        if not isinstance(leaf, Tensor)
        else written[id(leaf)]
        if id(leaf) in written
        else slots.seen(leaf, level)
        if is_view
        else slots.made(leaf, level)
        for leaf in leaves
    )


def name_of(func: Any) -> str:
    """Return an operator's name without its namespace."""
    return str(func._schema.name.split("::")[1])


def functional(func: Any) -> Any:
    """Return the operator that returns what ``func`` writes, such as add for add_, or None."""
    namespace, name = func._schema.name.split("::")
    if not name.endswith("_") or name.endswith("__"):
        return None
    try:
        twin = getattr(getattr(getattr(torch.ops, namespace), name[:-1]), func._overloadname)
    except AttributeError:
        return None
    mine, others = func._schema.arguments, twin._schema.arguments
    return twin if [a.name for a in mine] == [a.name for a in others] else None
