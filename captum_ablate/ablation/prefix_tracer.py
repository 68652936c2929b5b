"""Trace the prefix: write a tape of what runs before the layer, or parallel to it, that serves later batches."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from captum_ablate.ablation.effects import storage_of
from captum_ablate.ablation.slots import CONSTANT, DATA, Slots
from captum_ablate.ablation.tape import Op, Ref, Tape, is_random, name_of, noted, why_not_noted, with_refs


class PrefixTracer:
    """Write the tape of what runs before the layer, or parallel to it, from the inputs on.

    The tape is refused, with a reason, if the same operators on another batch may be another computation:

    - Python may have read numbers that depend on the inputs.
    - A tensor takes part that is no input, no weight and no result of these operators.
    - An operator is random, or returns a shape that depends on numbers.
    """

    def __init__(self, model: nn.Module, inputs: list[Tensor]) -> None:
        self.slots = Slots(model)
        self.reason: str | None = None
        self.ops: list[Op] = []
        self.values: dict[int, Tensor] = {}
        self.inputs = [self.slots.seen(tensor, DATA) for tensor in inputs]
        self.activation = -1
        self._made = set(self.inputs)
        self._fixed: set[int] = set()  # slots that depend on the sizes of the inputs alone
        self._used: list[tuple[int, int]] = []
        if any(type(tensor) is not Tensor for tensor in inputs):
            self.refuse("an input is no plain tensor")

    def refuse(self, reason: str) -> None:
        """Drop the tape."""
        self.reason = self.reason or reason

    def note_activation(self, activation: Tensor) -> None:
        """Note which tensor is the layer's activation."""
        if self.reason is None:
            self.activation = self._slot(activation)

    def reads(
        self, func: Any, args: Any, kwargs: Any, targets: list[Tensor], leaves: list[Any], level: int
    ) -> tuple[Any, Any] | None:
        """Return an operator's arguments with ``Ref`` for tensors, or None if the tape does not need it."""
        if self.reason is not None:
            return None
        if any(storage_of(target) in self.slots.weights for target in targets):
            self.refuse("the model writes to its weights or buffers")
        if level == CONSTANT or name_of(func) == "lift_fresh":
            if is_random(func, args, kwargs):
                self.refuse(f"{func} is random")
            return None
        why = why_not_noted(func, args, kwargs, targets, leaves)
        if why is not None:
            self.refuse(why)
            return None
        return with_refs(args, self._slot), with_refs(kwargs, self._slot)

    def note(
        self, func: Any, reads: tuple[Any, Any] | None, outs: tuple[int | None, ...], targets: Any, tensors: Any
    ) -> None:
        """Note an operator. If ``reads`` is None, its results are the same for all inputs of this size."""
        slots = {slot for slot in outs if slot is not None}
        if reads is None:
            self._fixed |= slots
        elif self.reason is None:
            self._made |= slots
            self.ops += noted(func, reads, outs, targets, tensors, self.slots)

    def finish(self, tape: Tape) -> Tape | str:
        """Return the tape of the activation and of the values that ``tape`` reads, or the reason why there is none."""
        wanted = [slot for slot in tape.values if self.slots.levels[slot] == DATA and slot not in self._fixed]
        if not self._made.issuperset(wanted):
            self.refuse("a tensor from outside takes part")
        if any(self.slots.version(key) != version for key, version in self._used):
            self.refuse("memory is written to after it was read")
        if self.reason is not None:
            return self.reason
        leaves, spec = tree_flatten([Ref(slot) for slot in (self.activation, *wanted)])
        constants = {slot for slot in self.values if self.slots.levels[slot] == CONSTANT}
        return Tape(self._needed(wanted), self.values, constants, self.slots.specs, (leaves, spec), tape.rows)

    def _slot(self, tensor: Tensor) -> int:
        slot, key = self.slots.slot_of(tensor), storage_of(tensor)
        if slot is None:
            if key not in self.slots.weights or self.slots.is_stale(tensor):
                self.refuse("a tensor from outside takes part, or one tensor writes to memory that another reads")
            slot = self.slots.seen(tensor, CONSTANT if key in self.slots.weights else DATA)
        if slot not in self._made:
            if self.slots.levels[slot] != CONSTANT and slot not in self._fixed:
                self.refuse("a tensor from outside takes part")
            self.values.setdefault(slot, tensor)
            self._used.append((key, self.slots.version(key)))
        return slot

    def _needed(self, values: list[int]) -> list[Op]:
        """Return the operators on which the activation and the values depend."""
        wanted, kept = {self.activation, *values}, list[Op]()
        for op in reversed(self.ops):
            if wanted.intersection(op.outs):
                wanted.update(op.reads)
                kept.append(op)
        return kept[::-1]
