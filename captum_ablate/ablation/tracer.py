"""Trace the suffix: write a tape of the operators after the layer, which runs again without the model's Python code.

A recorded forward pass notes every operator that depends on the ablated activations. Everything else is a value. The
tape is refused, with a reason, and modules are replayed instead, in these cases:

- Python may have read such numbers: a branch, a printout, a conversion to numpy.
- An operator is random.
- One tensor writes to memory that another tensor reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from captum_ablate.ablation.effects import signature_of, storage_of, tensors_in, written_values
from captum_ablate.ablation.prefix_tracer import PrefixTracer
from captum_ablate.ablation.slots import CONSTANT, DATA, LAYER
from captum_ablate.ablation.tape import (
    LAYOUTS,
    Op,
    Ref,
    Tape,
    name_of,
    noted,
    results_of,
    slots_of,
    why_not_noted,
    with_refs,
    without_layout,
    written_tensors,
)

_SIZED = frozenset("expand repeat zeros ones full empty arange new_zeros new_ones new_full new_empty".split())  # noqa: SIM905
"""Operators whose results may have the batch's size without reading it, so they are no constants."""


class Tracer:
    """Note the operators of a recorded forward pass, from the first ablated activation on.

    All others go to ``prefix``: what runs before the layer, or parallel to it.
    """

    def __init__(self, rows: int, prefix: PrefixTracer) -> None:
        self.reason: str | None = None
        self.rows = rows
        self.ops: list[Op] = []
        self.values: dict[int, Tensor] = {}
        self.slots, self.prefix = prefix.slots, prefix
        self._used: list[tuple[int, int, int]] = []  # storage, version and slot of every value read
        self._copied: set[int] = set()  # slots of values copied before their memory was overwritten
        self._strides: Sequence[int] = ()  # strides of the argument of an ``as_strided``, before it runs
        self.paused = False

    @property
    def started(self) -> bool:
        """Tell whether a site has been ablated yet."""
        return bool(self.ops)

    def refuse(self, reason: str) -> None:
        """Drop the tape."""
        self.reason = self.reason or reason

    def ablated(self, site: int, activation: Tensor, result: Tensor) -> None:
        """Note the ablation of a site, from ``activation`` to the new tensor ``result``."""
        if self.reason is None:
            if not self.ops:
                self.prefix.note_activation(activation)
            source = self._slot(activation) if self.ops else self.slots.new(activation, LAYER)
            self.ops.append(Op(None, (Ref(source),), {}, (self.slots.made(result, LAYER),), site))

    def before(self, func: Any, args: Any, kwargs: Any) -> None:
        """Copy what an operator will overwrite, if the tape needs the old content."""
        if name_of(func) in LAYOUTS:
            self._strides = args[0].stride()
        if self.reason is not None or not self.ops or self.paused:
            return
        written = signature_of(func)[1]
        if not written or self.slots.level(args, kwargs) < LAYER:
            return
        for value in written_values(written, args, kwargs):
            for tensor in tensors_in(value):
                slot = self._slot(tensor)
                if self.slots.levels[slot] < LAYER and self.reason is None:
                    self.values[slot] = tensor.clone()
                    self._copied.add(slot)

    def after(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Note an operator that has run."""
        if self.reason is not None or self.paused:
            return
        func, args = without_layout(func, args, self._strides)
        if name_of(func) == "lift_fresh" and result.ndim > 0:
            self._made_by_python()
        level = self.slots.level(args, kwargs)
        targets = written_tensors(func, args, kwargs)
        if level < LAYER:
            self._note_independent(func, args, kwargs, targets, result, level)
            return
        leaves = results_of(result)
        why = why_not_noted(func, args, kwargs, targets, leaves)
        if why is not None:
            self.refuse(why)
            return
        reads = with_refs(args, self._slot), with_refs(kwargs, self._slot)
        if self.reason is not None:
            return
        outs = slots_of(func, targets, leaves, self.slots, LAYER)
        self.ops += noted(func, reads, outs, targets, (args, kwargs), self.slots)

    def _made_by_python(self) -> None:
        """Note a tensor made from Python's numbers: making it from a list of tensors reads them unseen."""
        reason = "a tensor is made from Python's numbers"
        if self.started:
            self.refuse(reason)
        self.prefix.refuse(reason)

    def looked_at(self, tensor: Tensor | None, method: str) -> None:
        """Note that Python read the numbers of ``tensor`` (None: of some tensor, in another thread)."""
        level = LAYER if tensor is None else self.slots.level_of(tensor)
        if self.started and self.reason is None and level == LAYER:
            self.refuse(f"Python reads numbers that depend on the ablation ({method})")
        if level >= DATA:
            self.prefix.refuse(f"Python reads numbers that depend on the inputs ({method})")

    def finish(self, outputs: Any) -> Tape | str:
        """Return the tape of a pass that returned ``outputs``, or the reason why there is none."""
        leaves, spec = tree_flatten(outputs)
        refs = [Ref(self._slot(leaf)) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        if any(not isinstance(leaf, (Ref, bool, int, float, str, type(None))) for leaf in refs):
            self.refuse("the outputs hold more than tensors and numbers")
        if not any(isinstance(leaf, Ref) for leaf in refs):
            self.refuse("the outputs hold no tensor")
        for key, version, slot in self._used:
            if self.slots.version(key) != version and slot not in self._copied:
                self.refuse("memory is written to after it was read")
        if self.reason is not None:
            return self.reason
        constants = {slot for slot in self.values if self.slots.levels[slot] == CONSTANT}
        return Tape(self.ops, self.values, constants, self.slots.specs, (refs, spec), self.rows)

    def _note_independent(
        self, func: Any, args: Any, kwargs: Any, targets: list[Tensor], result: Any, level: int
    ) -> None:
        """Note an operator that does not depend on the ablation: its results are values."""
        leaves = results_of(result)
        reads = self.prefix.reads(func, args, kwargs, targets, leaves, level)
        for target in targets:
            if storage_of(target) in self.slots.dependent:
                self.refuse("memory of the suffix is overwritten")
        given = DATA if name_of(func) in _SIZED else level
        outs = slots_of(func, targets, leaves, self.slots, given)
        self.prefix.note(func, reads, outs, targets, (args, kwargs))

    def _slot(self, tensor: Tensor) -> int:
        """Return the slot of a tensor that is read. A tensor never seen before is a value from outside."""
        slots, key = self.slots, storage_of(tensor)
        slot = slots.slot_of(tensor)
        if slot is None:
            if key in slots.dependent:
                self.refuse("a tensor that no operator returned reads memory of the suffix, or writes to it")
            if type(tensor) not in (Tensor, nn.Parameter) or (key == 0 and tensor.numel() > 0):
                self.refuse(f"a tensor of type {type(tensor).__name__} without plain memory takes part")
            is_held = key in slots.weights or key in slots.held
            if not is_held and not slots.is_stale(tensor):
                self.refuse("a tensor takes part that no operator returned and no module holds")
            slot = slots.seen(tensor, CONSTANT if key in slots.weights else DATA)
        if slots.levels[slot] < LAYER:
            self.values.setdefault(slot, tensor)
            self._used.append((key, slots.version(key), slot))
        return slot
