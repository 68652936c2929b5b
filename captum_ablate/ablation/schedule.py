"""Prepare a tape's operators to run: arguments in place, and memory freed or reused as soon as nobody reads it.

A tape was recorded with n rows. A schedule runs it with k n rows, for k stacked masks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from captum_ablate.ablation.effects import leaves_in, signature_of
from captum_ablate.ablation.tape import Op, Ref, Tape
from captum_ablate.ablation.weights import Weights


@dataclass
class Step:
    """An operator ready to run: its arguments, the ``places`` of slots among them, and the slots that die after it.

    If ``site`` is set, the step is the ablation of that site, and slot ``place`` holds its activation.
    """

    func: Any
    args: list[Any]
    kwargs: dict[str, Any]
    places: list[tuple[int, int]]
    nested: bool
    outs: tuple[Any, ...]
    site: int | None
    place: int = -1
    dies: list[int] = field(default_factory=list)

    def run(self, slots: list[Any]) -> None:
        """Run the operator on ``slots``, and store its results there."""
        if self.nested:
            args = [_filled(a, slots) for a in self.args]
            result = self.func(*args, **{k: _filled(a, slots) for k, a in self.kwargs.items()})
        else:
            args = list(self.args)
            for place, slot in self.places:
                args[place] = slots[slot]
            result = self.func(*args, **self.kwargs)
        if isinstance(result, Tensor):
            slots[self.outs[0]] = result
        else:
            for slot, value in zip(self.outs, result, strict=True):
                if slot is not None:
                    slots[slot] = value


class Values:
    """A tape's tensors that are not results of its operators, in the memory format of a strategy."""

    def __init__(self, tape: Tape, weights: Weights, *, channels_last: bool) -> None:
        self.tape, self.weights, self.channels_last = tape, weights, channels_last

    def value(self, slot: int, k: int) -> Tensor:
        """Return the value of a slot, for k n rows."""
        value = self.tape.values[slot]
        if self.channels_last and value.ndim == 4 and value.is_floating_point():
            is_constant = slot in self.tape.constants
            value = self.weights.channels_last(value) if is_constant else in_channels_last(value)
        if k > 1 and slot not in self.tape.constants and holds_rows(value.shape, self.tape.rows):
            value = value.repeat(k, *(1,) * (value.ndim - 1))
            value = in_channels_last(value) if self.channels_last and value.ndim == 4 else value
        return value

    def argument(self, value: Any) -> Any:
        """Return an operator's argument; a tensor (a folded weight) in the strategy's memory format."""
        is_weight = isinstance(value, Tensor) and value.ndim == 4 and self.channels_last
        return self.weights.channels_last(value) if is_weight else value

    def constant(self, argument: Any) -> Tensor | None:
        """Return the value of an argument that depends on neither inputs nor ablation, else None."""
        if isinstance(argument, Ref):
            return self.value(argument.slot, 1) if argument.slot in self.tape.constants else None
        found = self.argument(argument)
        assert found is None or isinstance(found, Tensor)
        return found


@dataclass
class Schedule:
    """The steps for one number of stacked masks, and the values that they read, by slot (None: a step's result)."""

    steps: list[Step]
    values: list[Any]

    @classmethod
    def of(cls, ops: Sequence[Op], values: Values, k: int = 1, mine: Collection[int] = ()) -> Schedule:
        """Return the schedule of ``ops`` for k n rows; ``mine`` are slots of the start that may be overwritten."""
        tape = values.tape
        outputs = {x.slot for x in tape.outputs[0] if isinstance(x, Ref)}
        known: list[Any] = [None] * len(tape.specs)
        for slot in ({s for op in ops for s in op.reads} | outputs) & tape.values.keys():
            known[slot] = values.value(slot, k)
        memory = _Memory(ops, outputs, mine)
        return cls([_step(op, number, memory, values, k) for number, op in enumerate(ops)], known)

    def place(self, site: int) -> int:
        """Return the number of the step that ablates a site."""
        return next(number for number, step in enumerate(self.steps) if step.site == site)

    def filled(self, given: Mapping[int, Tensor]) -> list[Any]:
        """Return all slots before the first step: the values, and what is ``given``."""
        slots = list(self.values)
        for slot, value in given.items():
            slots[slot] = value
        return slots


class _Memory:
    """Find which slots share memory, and which operator reads it last."""

    def __init__(self, ops: Sequence[Op], outputs: set[int], mine: Collection[int]) -> None:
        self._root: dict[int, int] = {slot: slot for slot in mine}
        self._last: dict[int, int] = {}
        self._last_own: dict[int, int] = {}
        for number, op in enumerate(ops):
            for slot in op.reads:
                self._last_own[slot] = number
                if slot in self._root:
                    self._last[self._root[slot]] = number
            shares = op.func is not None and (signature_of(op.func)[0] or op.name == "reshape")
            for out in op.outs:
                if out is not None:
                    source = op.reads[0] if shares and op.reads else out
                    self._root[out] = self._root.get(source, -1) if shares else out
        self._kept = {self._root.get(slot, -1) for slot in outputs} | {-1}
        self._outputs = outputs

    def is_free(self, slot: int, number: int) -> bool:
        """Tell whether a step made the memory of a slot, and operator ``number`` is the last to read it."""
        root = self._root.get(slot, -1)
        return root not in self._kept and self._last.get(root) == number

    def root(self, slot: int) -> int:
        return self._root.get(slot, -1)

    def dying(self, op: Op, number: int) -> list[int]:
        """Return the slots that nobody reads after operator ``number``."""
        own = [s for s in dict.fromkeys(op.reads) if self._last_own[s] == number and s in self._root]
        unread = [s for s in op.outs if s is not None and s not in self._last_own]
        return [s for s in own + unread if s not in self._outputs]


def _step(op: Op, number: int, memory: _Memory, values: Values, k: int) -> Step:
    func, args = op.func, [values.argument(a) for a in op.args]
    if op.site is not None:
        return Step(None, [], {}, [], False, op.outs, op.site, args[0].slot, memory.dying(op, number))
    if op.name in ("view", "_unsafe_view"):  # the memory layout may differ from the recorded one
        func = torch.ops.aten.reshape.default
    if k > 1:
        args = _scaled(op, args, values.tape, k)
    if func is op.func:
        func, args = _written_over(op, number, args, memory, values.tape)
    nested = any(not isinstance(a, Ref) and leaves_in(a, Ref) for a in args) or bool(leaves_in(op.kwargs, Ref))
    places = [(i, a.slot) for i, a in enumerate(args) if isinstance(a, Ref)]
    return Step(func, args, op.kwargs, places, nested, op.outs, None, dies=memory.dying(op, number))


def _written_over(op: Op, number: int, args: list[Any], memory: _Memory, tape: Tape) -> tuple[Any, list[Any]]:
    """Return the in-place twin that overwrites an argument whose memory is free, else the operator itself."""
    twin, out = _in_place(op), op.outs[0]
    if twin is None or op.kwargs:
        return op.func, args
    assert out is not None
    swaps = op.name in ("add", "mul") and len(args) == 2 and all(isinstance(a, Ref) for a in args)
    for place in (0, 1) if swaps else (0,):
        target = args[place]
        others = [a for i, a in enumerate(args) if i != place and isinstance(a, Ref)]
        if (
            isinstance(target, Ref)
            and tape.specs[target.slot] == tape.specs[out]
            and memory.is_free(target.slot, number)
            and all(memory.root(other.slot) != memory.root(target.slot) for other in others)
        ):
            return twin, args if place == 0 else [target, args[0]]
    return op.func, args


_SIZES = {"view": 1, "_unsafe_view": 1, "reshape": 1, "expand": 1, "new_zeros": 1, "new_ones": 1, "new_full": 1}
"""Operators with sizes among their arguments, and the place of these."""


def _scaled(op: Op, args: list[Any], tape: Tape, k: int) -> list[Any]:
    """Return the arguments for k n rows: sizes that count rows are multiplied by k."""
    place, n = _SIZES.get(op.name), tape.rows
    if place is None or len(args) <= place or not args[place]:
        return args
    sizes = list(args[place])
    if n == 1 and op.name in ("view", "_unsafe_view", "reshape"):
        sizes[0] *= k if sizes[0] > 0 else 1  # one sample: the first size always counts rows
    elif holds_rows(tape.specs[op.reads[0]].shape, n) and holds_rows((sizes[0],), n):
        sizes[0] *= k
    return [*args[:place], sizes, *args[place + 1 :]]


def holds_rows(shape: Sequence[int], n: int) -> bool:
    """Tell whether the first axis of a shape may be that of n samples, or of several rows for each of them."""
    return len(shape) > 0 and (shape[0] == n or (n > 1 and shape[0] > 0 and shape[0] % n == 0))


_IN_PLACE = frozenset(
    "relu hardtanh add sub mul silu hardswish hardsigmoid sigmoid tanh leaky_relu elu gelu clamp clamp_min".split()  # noqa: SIM905
)


def _in_place(op: Op) -> Any:
    if op.name not in _IN_PLACE or len(op.outs) != 1:
        return None
    twin = getattr(torch.ops.aten, op.name + "_", None)
    return getattr(twin, op.func._overloadname, None)


def _filled(value: Any, slots: list[Any]) -> Any:
    if isinstance(value, Ref):
        return slots[value.slot]
    if isinstance(value, (list, tuple)):
        return type(value)(_filled(x, slots) for x in value)
    return value


def in_channels_last(value: Tensor) -> Tensor:
    """Return ``value`` in channels-last memory format if it has four axes, else as it is."""
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
