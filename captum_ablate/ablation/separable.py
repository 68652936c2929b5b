"""Move the mask past operators that act on each unit alone. They run once; the result is bit-identical.

With h a run of such operators, ``h(where(mask, reference, activation)) = where(mask', h(reference), h(activation))``.
They are activation functions, batch norm in evaluation mode, pooling, depthwise convolutions, flattening, and additions
of what does not depend on the ablation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from captum_ablate.ablation.site import Site
from captum_ablate.ablation.slots import Spec
from captum_ablate.ablation.tape import Op, Ref, Tape


@dataclass(frozen=True)
class Axis:
    """A tensor's axis of units; ``owner [size]`` is the unit of each index, or -1 for none.

    If every element of several axes is a unit, ``dim`` is 0 and ``owner`` is empty.
    """

    dim: int
    owner: Tensor

    def is_same(self, other: Axis) -> bool:
        return self.dim == other.dim and torch.equal(self.owner, other.owner)


@dataclass
class Separated:
    """Slots whose values are known for intact and for ablated units, and the numbers of the operators ``done``."""

    device: torch.device
    done: set[int] = field(default_factory=set)
    slots: dict[int, Axis] = field(default_factory=dict)
    intact: dict[int, Tensor] = field(default_factory=dict)
    ablated: dict[int, Tensor] = field(default_factory=dict)

    def mixed(self, slot: int, masks: Tensor, *, channels_last: bool = False, by_row: bool = False) -> Tensor:
        """Return a slot's value for ``masks [k, units]``, k times the rows, or with one mask a row (``by_row``)."""
        intact, ablated, axis = self.intact[slot], self.ablated[slot], self.slots[slot]
        if axis.dim == 0:
            spread = masks.reshape(len(masks), 1, *intact.shape[1:])
        else:
            chosen = masks[:, axis.owner.clamp(min=0)] & (axis.owner >= 0)
            spread = chosen.reshape(len(masks), 1, *(-1 if d == axis.dim else 1 for d in range(1, intact.ndim)))
        if len(masks) == 1 or by_row:
            return torch.where(spread[:, 0], ablated, intact)
        if not (channels_last and intact.ndim == 4):
            return torch.where(spread, ablated, intact).flatten(0, 1)
        n = len(intact)
        whole = intact.new_empty((len(masks) * n, *intact.shape[1:]))
        whole = whole.contiguous(memory_format=torch.channels_last)
        for k in range(len(masks)):
            torch.where(spread[k], ablated, intact, out=whole[k * n : (k + 1) * n])
        return whole


def separable(ops: list[Op], tape: Tape, site: Site, activation: Tensor, reference: Tensor) -> Separated:
    """Run the operators that act on each unit of the first site alone, on ``activation`` and on ``reference``."""
    found = Separated(activation.device)
    first = ops[0].outs[0]
    assert first is not None
    found.done.add(0)
    found.intact[first] = activation
    found.ablated[first] = torch.empty_like(activation).copy_(reference.expand(activation.shape))
    axis = _first_axis(site, activation)
    found.slots[first] = axis
    if axis.dim == 0:
        return found
    read = {slot for op in ops for slot in op.reads} | {x.slot for x in tape.outputs[0] if isinstance(x, Ref)}
    for number, op in enumerate(ops[1:], start=1):
        dependent = [slot for slot in op.reads if slot not in tape.values]
        out = op.outs[0]
        if op.site is not None or out is None or not dependent or not all(s in found.slots for s in dependent):
            continue
        if any(slot in read for slot in op.outs[1:] if slot is not None):
            continue
        after = _axis_after(op, found.slots, tape)
        if after is None:
            continue
        found.done.add(number)
        found.slots[out] = after
        found.intact[out] = _run(op, found.intact, tape)
        found.ablated[out] = _run(op, found.ablated, tape)
    _forget_unread(found, ops, tape)
    return found


def _forget_unread(found: Separated, ops: list[Op], tape: Tape) -> None:
    """Keep only the slots that a later operator reads."""
    read = {slot for number, op in enumerate(ops) if number not in found.done for slot in op.reads}
    read |= {x.slot for x in tape.outputs[0] if isinstance(x, Ref)}
    for slot in [slot for slot in found.slots if slot not in read]:
        for table in (found.slots, found.intact, found.ablated):
            del table[slot]


def _first_axis(site: Site, activation: Tensor) -> Axis:
    kept = site.axis.shape(activation.shape)
    dims = [d for d in range(1, activation.ndim) if kept[d] != 1] or [1]
    size = activation.shape[dims[0]]
    groups = site.axis.groups
    owner = torch.arange(size) if groups is None else torch.tensor(groups)
    if len(dims) > 1 or len(owner) != size:
        if groups is None:
            return Axis(0, torch.empty(0, dtype=torch.int64))
        raise AssertionError("groups lie along one axis")
    return Axis(dims[0], owner.to(activation.device))


def _run(op: Op, values: dict[int, Tensor], tape: Tape) -> Tensor:
    func = torch.ops.aten.reshape.default if op.name in ("view", "_unsafe_view") else op.func
    args, kwargs = _filled(op.args, values, tape), {k: _filled(v, values, tape) for k, v in op.kwargs.items()}
    result = func(*args, **kwargs)
    return result if isinstance(result, Tensor) else result[0]


def _filled(value: Any, values: dict[int, Tensor], tape: Tape) -> Any:
    if isinstance(value, Ref):
        return values[value.slot] if value.slot in values else tape.values[value.slot]
    if isinstance(value, (list, tuple)):
        return type(value)(_filled(x, values, tape) for x in value)
    return value


def _axis_after(op: Op, axes: dict[int, Axis], tape: Tape) -> Axis | None:
    """Return the result's axis of units, or None if the operator does not act on each unit alone."""
    rule = _RULES.get(op.name)
    out = op.outs[0]
    assert out is not None
    first = op.args[0] if op.args else None
    if rule is None:
        return None
    if op.name == "cat":
        return _cat(op, axes, tape)
    if not isinstance(first, Ref) or first.slot not in axes:
        swapped = op.name in ("add", "mul") and len(op.args) > 1 and isinstance(op.args[1], Ref)
        if not swapped or op.args[1].slot not in axes:
            return None
        first = op.args[1]
    return rule(op, axes[first.slot], tape.specs[first.slot], tape.specs[out], axes)


Rule = Callable[[Op, Axis, Spec, Spec, dict[int, Axis]], Axis | None]


def _elementwise(op: Op, axis: Axis, before: Spec, after: Spec, axes: dict[int, Axis]) -> Axis | None:
    others = [axes[s] for s in op.reads if s in axes]
    return axis if before.shape == after.shape and all(axis.is_same(o) for o in others) else None


def _batch_norm(op: Op, axis: Axis, before: Spec, after: Spec, axes: dict[int, Axis]) -> Axis | None:
    training = False if op.name.endswith("no_training") else op.args[5]
    return axis if training is False else None


def _spatial(op: Op, axis: Axis, before: Spec, after: Spec, axes: dict[int, Axis]) -> Axis | None:
    same = axis.dim == 1 and len(before.shape) >= 3 and len(after.shape) == len(before.shape)
    return axis if same and after.shape[:2] == before.shape[:2] else None


def _reduced(op: Op, axis: Axis, before: Spec, after: Spec, axes: dict[int, Axis]) -> Axis | None:
    if len(op.args) < 2 or not isinstance(op.args[1], (list, tuple)) or not op.args[1]:
        return None
    dims = {d % len(before.shape) for d in op.args[1]}
    if axis.dim in dims or 0 in dims:
        return None
    keep = len(after.shape) == len(before.shape)
    return Axis(axis.dim if keep else axis.dim - sum(d < axis.dim for d in dims), axis.owner)


def _reshaped(op: Op, axis: Axis, before: Spec, after: Spec, axes: dict[int, Axis]) -> Axis | None:
    dim, old, new = axis.dim, tuple(before.shape), tuple(after.shape)
    if new[: dim + 1] == old[: dim + 1]:
        return axis
    if len(new) == dim + 1 and new[:dim] == old[:dim] and new[dim] == prod(old[dim:]):
        return Axis(dim, axis.owner.repeat_interleave(prod(old[dim + 1 :])))
    if dim == len(old) - 1 and new[-1] == old[-1] and len(new) > 1 and prod(new[:-1]) == prod(old[:-1]):
        return Axis(len(new) - 1, axis.owner)
    return None


def _permuted(op: Op, axis: Axis, before: Spec, after: Spec, axes: dict[int, Axis]) -> Axis | None:
    dims = [d % len(before.shape) for d in op.args[1]]
    return Axis(dims.index(axis.dim), axis.owner) if dims[0] == 0 else None


def _transposed(op: Op, axis: Axis, before: Spec, after: Spec, axes: dict[int, Axis]) -> Axis | None:
    a, b = (d % len(before.shape) for d in op.args[1:3])
    if 0 in (a, b):
        return None
    return Axis({a: b, b: a}.get(axis.dim, axis.dim), axis.owner)


def _unsqueezed(op: Op, axis: Axis, before: Spec, after: Spec, axes: dict[int, Axis]) -> Axis | None:
    place = op.args[1] % len(after.shape)
    return None if place == 0 else Axis(axis.dim + (place <= axis.dim), axis.owner)


def _selected(op: Op, axis: Axis, before: Spec, after: Spec, axes: dict[int, Axis]) -> Axis | None:
    place = op.args[1] % len(before.shape) if len(op.args) > 1 else 0
    if place in (0, axis.dim):
        return None
    gone = len(after.shape) < len(before.shape)
    return Axis(axis.dim - (gone and place < axis.dim), axis.owner)


def _depthwise(op: Op, axis: Axis, before: Spec, after: Spec, axes: dict[int, Axis]) -> Axis | None:
    transposed, groups = op.args[6], op.args[8]
    channels = before.shape[1]
    if len(op.reads) > 1 and any(s in axes for s in op.reads[1:]):
        return None
    if axis.dim != 1 or transposed or groups != channels or after.shape[1] % channels:
        return None
    return Axis(1, axis.owner.repeat_interleave(after.shape[1] // channels))


def _cat(op: Op, axes: dict[int, Axis], tape: Tape) -> Axis | None:
    parts = op.args[0]
    if not all(isinstance(part, Ref) for part in parts):
        return None
    known = [axes[part.slot] for part in parts if part.slot in axes]
    dim = known[0].dim
    at = op.args[1] if len(op.args) > 1 else op.kwargs.get("dim", 0)
    if at % len(tape.specs[parts[0].slot].shape) != dim or any(axis.dim != dim for axis in known):
        return None
    nobody = [
        axes[part.slot].owner if part.slot in axes else known[0].owner.new_full((tape.specs[part.slot].shape[dim],), -1)
        for part in parts
    ]
    return Axis(dim, torch.cat(nobody))


ELEMENTWISE = frozenset(
    """
    relu hardtanh gelu silu sigmoid tanh leaky_relu elu hardswish hardsigmoid softplus mish abs neg exp sqrt rsqrt pow
    clone detach alias clamp clamp_min clamp_max add sub mul div rsub _to_copy _prelu_kernel
    """.split()  # noqa: SIM905  a list of words reads better
)
_BATCH_NORMS = frozenset(
    ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
)
_POOLS = frozenset(
    """
    max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d max_pool3d_with_indices avg_pool3d _adaptive_avg_pool3d
    """.split()  # noqa: SIM905
)
_RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(_BATCH_NORMS, _batch_norm),
    **dict.fromkeys(_POOLS, _spatial),
    **dict.fromkeys(("mean", "sum", "amax"), _reduced),
    **dict.fromkeys(("view", "_unsafe_view", "reshape"), _reshaped),
    "permute": _permuted,
    "transpose": _transposed,
    "unsqueeze": _unsqueezed,
    **dict.fromkeys(("slice", "select"), _selected),
    "convolution": _depthwise,
    "cat": lambda *_: None,
}
