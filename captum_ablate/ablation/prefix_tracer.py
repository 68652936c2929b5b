"""What runs before the layer, and beside it, operator by operator: a tape that serves other batches like this one."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from captum_ablate.ablation.effects import storage_of
from captum_ablate.ablation.slots import CONSTANT, DATA, Slots
from captum_ablate.ablation.tape import Op, Ref, Tape, is_random, name_of, noted, why_not_noted, with_refs


class PrefixTracer:
    """Notes what runs before the layer, and beside it, from the inputs on: a tape too, for other batches like this.

    It is refused, with the reason, where the same operators on another batch need not be the same computation: where
    Python could have looked at numbers that follow from the inputs, where a tensor takes part that is neither an input
    nor a weight nor made here, where an operator is random or gives a shape that follows from numbers.
    """

    def __init__(self, model: nn.Module, inputs: list[Tensor]) -> None:
        self.slots = Slots(model)
        self.reason: str | None = None
        self.ops: list[Op] = []
        self.values: dict[int, Tensor] = {}
        self.inputs = [self.slots.seen(tensor, DATA) for tensor in inputs]
        self.activation = -1
        self._made = set(self.inputs)
        self._fixed: set[int] = set()  # of these sizes alone
        self._used: list[tuple[int, int]] = []
        if any(type(tensor) is not Tensor for tensor in inputs):
            self.refuse("an input is no plain tensor")

    def refuse(self, reason: str) -> None:
        """Give the tape up."""
        self.reason = self.reason or reason

    def note_activation(self, activation: Tensor) -> None:
        """Note which tensor the layer gave."""
        if self.reason is None:
            self.activation = self._slot(activation)

    def reads(
        self, func: Any, args: Any, kwargs: Any, targets: list[Tensor], leaves: list[Any], level: int
    ) -> tuple[Any, Any] | None:
        """Return the arguments with ``Ref`` for tensors, as they were before the operator; None if it is no part."""
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
        """Note an operator, or, where it reads no inputs, that its results are the same for all inputs of this size."""
        slots = {slot for slot in outs if slot is not None}
        if reads is None:
            self._fixed |= slots
        elif self.reason is None:
            self._made |= slots
            self.ops += noted(func, reads, outs, targets, tensors, self.slots)

    def finish(self, tape: Tape) -> Tape | str:
        """Return the tape that gives the activation and the values of ``tape``, or the reason why there is none."""
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
                self.refuse("a tensor from outside takes part, or memory is written by one tensor and read by another")
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
