"""Narrow a tape to what the outputs read: after a vision transformer's last attention, the first token alone.

If all readers of a tensor need one position of an axis, its operator runs on that position only. It must act on every
position alone: layer norm, linear maps, activation functions, the queries of an attention. The narrowing goes from the
outputs back to the first operator that reads all positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from captum_ablate.ablation.separable import ELEMENTWISE
from captum_ablate.ablation.slots import Spec
from captum_ablate.ablation.tape import Op, Ref, Tape

aten = torch.ops.aten

END = 2**63 - 1
"""The end of any axis."""


@dataclass(frozen=True)
class Position:
    """Position ``index`` of ``size`` positions; ``lead`` is the product of the sizes before them.

    The axis may be joined with earlier ones: ``[n, t, d]`` as ``[n t, d]``.
    """

    lead: int
    size: int
    index: int

    def axis(self, shape: Sequence[int]) -> int | None:
        """Return the axis of the positions in a shape, or None."""
        before = 1
        for axis, length in enumerate(shape):
            if before * length == self.lead * self.size:
                return axis if self.lead % before == 0 and length % self.size == 0 else None
            before *= length
        return None

    def alone(self, shape: Sequence[int]) -> int | None:
        """Return the axis of the positions if no other is joined with it, else None."""
        axis = self.axis(shape)
        return axis if axis is not None and shape[axis] == self.size else None

    def left(self, shape: Sequence[int]) -> list[int]:
        """Return the shape with this position alone."""
        axis = self.axis(shape)
        return [length // self.size if a == axis else length for a, length in enumerate(shape)]

    @classmethod
    def at(cls, shape: Sequence[int], axis: int, index: int) -> Position:
        """Return the position ``index`` of an axis."""
        return cls(prod(shape[:axis]), shape[axis], index)


Wants = dict[int, Position]
"""The position that an operator reads of some arguments, by their place; it reads the others whole."""


def narrowed(tape: Tape) -> Tape:
    """Return the tape with its operators on the positions that are read, or the tape itself if all are read."""
    wants = _wants(tape)
    works = (op.name != "slice" for op, own in zip(tape.ops, wants, strict=True) if own is not None)
    return (
        _Rewritten(tape, wants).tape if any(works) else tape
    )  # a slice does no work: torch 2.5 writes x[:, 0] with two


def _wants(tape: Tape) -> list[tuple[Position, Wants] | None]:
    """Return, for every operator that can run on one position, the position of its result and of its arguments."""
    read: dict[int, set[Position | None]] = {x.slot: {None} for x in tape.outputs[0] if isinstance(x, Ref)}
    found: list[tuple[Position, Wants] | None] = [None] * len(tape.ops)
    for number in reversed(range(len(tape.ops))):
        op, wants = tape.ops[number], None
        only = _only(op, read)
        picked = _picked(op, tape.specs)
        if only is not None and op.name in _RULES:
            wants = _RULES[op.name](op, only, tape)
            if wants is not None:
                found[number] = only, wants
        if wants is None and picked is not None:
            wants = {0: picked}
        for place, arg in enumerate(op.args):
            if isinstance(arg, Ref):
                read.setdefault(arg.slot, set()).add((wants or {}).get(place))
        nested = replace(op, args=tuple(a for a in op.args if not isinstance(a, Ref)))
        for slot in nested.reads:
            read.setdefault(slot, set()).add(None)
    return found


def _only(op: Op, read: dict[int, set[Position | None]]) -> Position | None:
    """Return the one position of an operator's result that all its readers need, or None."""
    if op.site is not None or op.outs[0] is None or any(read.get(slot) for slot in op.outs[1:] if slot is not None):
        return None
    wanted = read.get(op.outs[0], set())
    return next(iter(wanted)) if len(wanted) == 1 else None


def _picked(op: Op, specs: Sequence[Spec]) -> Position | None:
    """Return the position that an operator picks from its argument, on any axis but the samples', or None."""
    if op.name not in ("select", "slice") or not isinstance(op.args[0], Ref):
        return None
    shape = specs[op.args[0].slot].shape
    axis = (op.args[1] if len(op.args) > 1 else 0) % len(shape)
    if op.name == "select":
        picked = [op.args[2] % shape[axis]]
    else:
        given = [*op.args[2:5], None, None, None]
        picked = list(range(shape[axis]))[given[0] : given[1] : given[2]]
    one = axis > 0 and len(picked) == 1 and shape[axis] > 1
    return Position.at(shape, axis, picked[0]) if one else None


class _Rewritten:
    """The rewritten tape. A slot that holds one position keeps its number."""

    def __init__(self, tape: Tape, wants: Sequence[tuple[Position, Wants] | None]) -> None:
        self._old, self._specs, self._ops = tape, list(tape.specs), list[Op]()
        self._held: set[int] = set()
        self._cut: dict[tuple[int, Position], int] = {}
        for op, own in zip(tape.ops, wants, strict=True):
            if own is not None:
                self._narrow(op, *own)
            elif op.name in ("select", "slice") and isinstance(op.args[0], Ref) and op.args[0].slot in self._held:
                first = (0,) if op.name == "select" else (0, 1)
                self._ops.append(Op(op.func, (op.args[0], op.args[1], *first), {}, op.outs))
            else:
                self._ops.append(op)
        self.tape = replace(tape, ops=self._ops, specs=self._specs)

    def _narrow(self, op: Op, position: Position, wants: Wants) -> None:
        args = [self._part(arg, wants[place]) if place in wants else arg for place, arg in enumerate(op.args)]
        out = op.outs[0]
        assert out is not None
        shape = position.left(self._old.specs[out].shape)
        self._specs[out] = replace(self._old.specs[out], shape=torch.Size(shape))
        self._held.add(out)
        if op.name == "_native_multi_head_attention":
            self._attend(op, args[0], out)
            return
        if op.name in _SIZED:
            args[1] = shape
        func = aten.reshape.default if op.name in ("view", "_unsafe_view") else op.func
        self._ops.append(Op(func, tuple(args), op.kwargs, op.outs))

    def _part(self, ref: Ref, position: Position) -> Ref:
        """Return one position of an argument, which is cut out unless the argument is already narrowed."""
        if ref.slot in self._held:
            return ref
        key = ref.slot, position
        if key not in self._cut:
            shape = self._old.specs[ref.slot].shape
            axis = position.axis(shape)
            args = (ref, axis, position.index, END, position.size)  # a stride, which also serves joined axes
            self._cut[key] = self._put(aten.slice.Tensor, args, position.left(shape)).slot
        return Ref(self._cut[key])

    def _put(self, func: Any, args: tuple[Any, ...], shape: Sequence[int], out: int | None = None) -> Ref:
        """Add an operator whose result is slot ``out``, or a new one."""
        if out is None:
            out = len(self._specs)
            dtype = next(self._specs[a.slot].dtype for a in args if isinstance(a, Ref))
            self._specs.append(Spec(torch.Size(shape), dtype))
        self._ops.append(Op(func, args, {}, (out,)))
        return Ref(out)

    def _attend(self, op: Op, query: Ref, out: int) -> None:
        """Write attention with one query over h heads of e numbers, without keys and values for all tokens.

        With q the query, ``q . (W_k x + b_k)`` is ``(W_k^T q) . x`` plus a constant that the softmax drops. And
        ``sum_t a_t (W_v x_t + b_v) = W_v (sum_t a_t x_t) + b_v``.
        """
        source, width, heads = op.args[0], op.args[3], op.args[4]
        n, tokens, _ = self._old.specs[source.slot].shape
        e = width // heads
        weight, bias, out_weight, out_bias = (
            self._old.values[a.slot] if isinstance(a, Ref) else a for a in op.args[5:9]
        )
        w_q, w_k, w_v = weight.split(width)
        b_q, _, b_v = bias.split(width)
        b_out = out_bias + out_weight @ b_v
        q = self._put(aten.linear.default, (query, w_q, b_q), (n, 1, width))
        q = self._put(aten.view.default, (q, [n, heads, e]), (n, heads, e))
        q = self._put(aten.transpose.int, (q, 0, 1), (heads, n, e))
        q = self._put(aten.bmm.default, (q, w_k.reshape(heads, e, width)), (heads, n, width))
        q = self._put(aten.transpose.int, (q, 0, 1), (n, heads, width))
        keys = self._put(aten.transpose.int, (source, 1, 2), (n, width, tokens))
        score = self._put(aten.bmm.default, (q, keys), (n, heads, tokens))
        score = self._put(aten.mul.Scalar, (score, e**-0.5), (n, heads, tokens))
        share = self._put(aten._softmax.default, (score, -1, False), (n, heads, tokens))
        value = self._put(aten.bmm.default, (share, source), (n, heads, width))
        value = self._put(aten.transpose.int, (value, 0, 1), (heads, n, width))
        value = self._put(aten.bmm.default, (value, w_v.reshape(heads, e, width).transpose(1, 2)), (heads, n, e))
        value = self._put(aten.transpose.int, (value, 0, 1), (n, heads, e))
        value = self._put(aten.reshape.default, (value, [n, 1, width]), (n, 1, width))
        self._put(aten.linear.default, (value, out_weight, b_out), (n, 1, width), out)


Rule = Callable[[Op, Position, Tape], Wants | None]
"""What an operator reads if one position of its result is needed; None if it needs more."""


def _shape(arg: Any, tape: Tape) -> Sequence[int]:
    return tape.specs[arg.slot].shape if isinstance(arg, Ref) else ()


def _elementwise(op: Op, position: Position, tape: Tape) -> Wants | None:
    out = tape.specs[op.outs[0] or 0].shape
    axis = position.axis(out)
    if axis is None or any(isinstance(a, Tensor) and a.ndim for a in op.args):
        return None
    joined, wants = position.lead // prod(out[:axis]), {}
    for place, arg in enumerate(op.args):
        if isinstance(arg, Ref):
            shape = _shape(arg, tape)
            own = axis - len(out) + len(shape)
            if own < 0 or shape[own] == 1:
                continue
            if shape[own] != out[axis]:
                return None
            wants[place] = replace(position, lead=prod(shape[:own]) * joined)
    return wants


def _expanded(op: Op, position: Position, tape: Tape) -> Wants | None:
    return _elementwise(replace(op, args=op.args[:1]), position, tape)


def _norm(op: Op, position: Position, tape: Tape) -> Wants | None:
    shape = _shape(op.args[0], tape)
    axis = position.axis(shape)
    return {0: position} if axis is not None and axis < len(shape) - len(op.args[1]) else None


def _linear(op: Op, position: Position, tape: Tape) -> Wants | None:
    place = 1 if op.name == "addmm" else 0
    axis, bias = position.axis(_shape(op.args[place], tape)), _shape(op.args[0], tape)
    last = len(_shape(op.args[place], tape)) - 1
    fits = axis is not None and axis < last and (op.name != "addmm" or len(bias) == 1)
    return {place: position} if fits and isinstance(op.args[place], Ref) else None


def _product(op: Op, position: Position, tape: Tape) -> Wants | None:
    fits = isinstance(op.args[0], Ref) and position.alone(tape.specs[op.outs[0] or 0].shape) == 1
    return {0: position} if fits else None


def _softmax(op: Op, position: Position, tape: Tape) -> Wants | None:
    shape = _shape(op.args[0], tape)
    axis = position.axis(shape)
    return {0: position} if axis is not None and op.args[1] % len(shape) != axis else None


def _reshaped(op: Op, position: Position, tape: Tape) -> Wants | None:
    both = position.axis(_shape(op.args[0], tape)), position.axis(tape.specs[op.outs[0] or 0].shape)
    return {0: position} if None not in both else None


def _moved(op: Op, position: Position, tape: Tape) -> Wants | None:
    shape, axis = _shape(op.args[0], tape), position.alone(tape.specs[op.outs[0] or 0].shape)
    if axis is None:
        return None
    if op.name == "permute":
        source = op.args[1][axis] % len(shape)
    else:
        a, b = (d % len(shape) for d in op.args[1:3])
        source = {a: b, b: a}.get(axis, axis)
    return {0: Position.at(shape, source, position.index)} if source > 0 else None


def _same(op: Op, position: Position, tape: Tape) -> Wants | None:
    """Apply to a slice that takes everything."""
    return {0: position} if _shape(op.args[0], tape) == tape.specs[op.outs[0] or 0].shape else None


def _attention(op: Op, position: Position, tape: Tape) -> Wants | None:
    shape = _shape(op.args[0], tape)
    axis = position.alone(tape.specs[op.outs[0] or 0].shape)
    given = dict(zip((a.name for a in op.func._schema.arguments), op.args, strict=False)) | op.kwargs
    rest = [value for name, value in given.items() if name not in ("query", "key", "value")]
    if any(isinstance(value, (Ref, Tensor)) for value in rest) or given.get("is_causal"):
        return None  # a mask has an axis of queries too
    return {0: Position.at(shape, axis, position.index)} if axis is not None and axis == len(shape) - 2 > 0 else None


def _heads(op: Op, position: Position, tape: Tape) -> Wants | None:
    query, key, value, *_, mask = op.args[:10]
    known = all(a.slot in tape.values if isinstance(a, Ref) else isinstance(a, Tensor) for a in op.args[5:9])
    simple = query == key == value and isinstance(query, Ref) and known and mask is None and not op.kwargs
    return {0: position} if simple and position.alone(_shape(query, tape)) == 1 else None


_SIZED = ("view", "_unsafe_view", "reshape", "expand")
"""Operators whose second argument is the shape of the result."""

_RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("view", "_unsafe_view", "reshape"), _reshaped),
    **dict.fromkeys(("transpose", "permute"), _moved),
    **dict.fromkeys(("addmm", "mm", "linear"), _linear),
    **dict.fromkeys(("_softmax", "softmax"), _softmax),
    **dict.fromkeys(
        (
            "scaled_dot_product_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_attention_math",
        ),
        _attention,
    ),
    "native_layer_norm": _norm,
    "bmm": _product,
    "expand": _expanded,
    "slice": _same,
    "_native_multi_head_attention": _heads,
}
