"""What ran behind the layer, operator by operator: a tape, which runs again without the model's Python code.

A recorded forward pass notes every operator that depends on the ablated activations; whatever does not is a value. The
tape is refused, with the reason, where Python could have looked at those numbers (a branch, a printout, a conversion to
numpy), where an operator is random, and where memory is written by one way and read by another: modules replay then.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves

from captum_ablate.replay.effects import signature_of, storage_of, written_values

CONSTANT, DATA, LAYER = 0, 1, 2
"""What a tensor depends on: weights alone, the inputs too, or the ablated activations."""


@dataclass(frozen=True)
class Ref:
    """Stands for a tensor among the arguments of an operator."""

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

    @property
    def reads(self) -> list[int]:
        """The slots that it reads."""
        return [leaf.slot for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Ref)]


@dataclass(frozen=True)
class Spec:
    """Shape and type of a slot's tensor when it was recorded."""

    shape: torch.Size
    dtype: torch.dtype


@dataclass
class Tape:
    """``ops`` on slots, and ``values`` of the slots that no ablation reaches; ``outputs`` as leaves and structure."""

    ops: list[Op]
    values: dict[int, Tensor]
    constants: set[int]
    specs: list[Spec]
    outputs: tuple[list[Any], TreeSpec]
    rows: int


@dataclass
class _Known:
    """A tensor that was seen: its slot, and the version of its memory that it stands for."""

    slot: int
    version: int
    alive: Any


_SIZED = frozenset("expand repeat zeros ones full empty arange new_zeros new_ones new_full new_empty".split())  # noqa: SIM905
"""Operators that make sizes, perhaps the batch's, out of nothing: what they give is no constant."""


class Tracer:
    """Notes operators while the forward pass that is recorded runs, from the first ablated activation on."""

    def __init__(self, model: nn.Module, rows: int) -> None:
        self.reason: str | None = None
        self.rows = rows
        self.ops: list[Op] = []
        self.values: dict[int, Tensor] = {}
        self.levels: list[int] = []
        self.specs: list[Spec] = []
        self._known: dict[int, _Known] = {}
        self._versions: dict[int, int] = {}
        self._behind: set[int] = set()  # storages of tensors that depend on the ablation
        self._used: list[tuple[int, int, int]] = []  # storage, version and slot of every value that was read
        self._copied: set[int] = set()  # values that are copies, made before the memory was written to
        self._weights = {storage_of(t) for t in [*model.parameters(), *model.buffers()]}
        self.paused = False

    @property
    def started(self) -> bool:
        """Whether a site has been ablated yet."""
        return bool(self.ops)

    def refuse(self, reason: str) -> None:
        """Give the tape up."""
        self.reason = self.reason or reason

    def ablated(self, site: int, activation: Tensor, result: Tensor) -> None:
        """Note the ablation of a site: ``activation`` goes in, ``result`` (a new tensor) comes out."""
        if self.reason is None:
            source = self._slot(activation) if self.ops else self._new(activation, LAYER)
            self.ops.append(Op(None, (Ref(source),), {}, (self._made(result, LAYER),), site))

    def before(self, func: Any, args: Any, kwargs: Any) -> None:
        """Take a copy of what an operator is about to write into, if the tape needs the old content."""
        if self.reason is not None or not self.ops or self.paused:
            return
        written = signature_of(func)[1]
        if not written or self._level(args, kwargs) < LAYER:
            return
        for value in written_values(written, args, kwargs):
            for tensor in tree_leaves(value):
                if isinstance(tensor, Tensor):
                    slot = self._slot(tensor)
                    if self.levels[slot] < LAYER and self.reason is None:
                        self.values[slot] = tensor.clone()
                        self._copied.add(slot)

    def after(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Take in an operator that has run."""
        if self.reason is not None or not self.ops or self.paused:
            return
        is_view, written = signature_of(func)
        level = self._level(args, kwargs)
        targets = [t for v in written_values(written, args, kwargs) for t in tree_leaves(v) if isinstance(t, Tensor)]
        if level < LAYER:
            self._not_behind(func, targets, result, level)
            return
        leaves = list(result) if isinstance(result, (tuple, list)) else [result]
        if not all(isinstance(leaf, Tensor) or leaf is None for leaf in leaves):
            self.refuse(f"{func} gives Python numbers that follow from the ablation, or a list of lists")
            return
        tags = func.tags
        if torch.Tag.nondeterministic_seeded in tags or torch.Tag.dynamic_output_shape in tags:
            self.refuse(f"{func} is random, or gives a shape that follows from the ablation")
            return
        reads = (self._refs(args), self._refs(kwargs))
        if self.reason is not None:
            return
        if not targets:
            outs = tuple(
                None if leaf is None else (self._seen(leaf, LAYER) if is_view else self._made(leaf, LAYER))
                for leaf in leaves
            )
            self.ops.append(Op(func, *reads, outs))
            return
        plain = _functional(func)
        if plain is None or len(targets) != 1 or len(leaves) != 1 or leaves[0] is not targets[0]:
            self.refuse(f"{func} writes into memory in a way that has no functional twin")
            return
        target = targets[0]
        key = storage_of(target)
        self._versions[key] = self._versions.get(key, 0) + 1
        self._behind.add(key)
        self.ops.append(Op(plain, *reads, (self._seen(target, LAYER, again=True),)))

    def looked_at(self, tensor: Tensor, method: str) -> None:
        """Take in that Python looked at the numbers of ``tensor``."""
        if self.started and self.reason is None and self.level_of(tensor) == LAYER:
            self.refuse(f"Python looks at numbers that follow from the ablation ({method})")

    def finish(self, outputs: Any) -> Tape | str:
        """Return the tape of a pass that gave ``outputs``, or the reason why there is none."""
        leaves, spec = tree_flatten(outputs)
        refs = [self._ref(leaf) for leaf in leaves]
        if any(not isinstance(leaf, (Ref, bool, int, float, str, type(None))) for leaf in refs):
            self.refuse("the outputs hold more than tensors and numbers")
        if not any(isinstance(leaf, Ref) for leaf in refs):
            self.refuse("the outputs hold no tensor")
        for key, version, slot in self._used:
            if self._versions.get(key, 0) != version and slot not in self._copied:
                self.refuse("memory is written to after it was read")
        if self.reason is not None:
            return self.reason
        constants = {slot for slot in self.values if self.levels[slot] == CONSTANT}
        return Tape(self.ops, self.values, constants, self.specs, (refs, spec), self.rows)

    def _not_behind(self, func: Any, targets: list[Tensor], result: Any, level: int) -> None:
        """Take in an operator that does not depend on the ablation: what it gives is a value."""
        for target in targets:
            key = storage_of(target)
            if key in self._behind:
                self.refuse("memory behind the layer is overwritten")
            self._versions[key] = self._versions.get(key, 0) + 1
            if id(target) in self._known:
                self._known[id(target)].version = self._versions[key]
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and not any(leaf is t for t in targets):
                if not signature_of(func)[0]:
                    self._fresh(storage_of(leaf))
                self._seen(leaf, DATA if name_of(func) in _SIZED else level)

    def _level(self, args: Any, kwargs: Any) -> int:
        level = CONSTANT
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                level = max(level, self.level_of(leaf))
        return level

    def level_of(self, tensor: Tensor) -> int:
        """Return what a tensor depends on."""
        known = self._known.get(id(tensor))
        if known is not None:
            return self.levels[known.slot]
        key = storage_of(tensor)
        if key in self._behind:
            return LAYER
        return CONSTANT if key in self._weights else DATA

    def _refs(self, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(self._refs(x) for x in value) if type(value) in (tuple, list) else value
        if isinstance(value, dict):
            return {k: self._refs(x) for k, x in value.items()}
        return self._ref(value)

    def _ref(self, value: Any) -> Any:
        return Ref(self._slot(value)) if isinstance(value, Tensor) else value

    def _slot(self, tensor: Tensor) -> int:
        """Return the slot of a tensor that is read; one never seen before is a value from outside."""
        key = storage_of(tensor)
        known = self._known.get(id(tensor))
        if known is None:
            if key in self._behind:
                self.refuse("memory behind the layer is read by a tensor that no operator gave")
            if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer) or (key == 0 and tensor.numel() > 0):
                self.refuse(f"a tensor of type {type(tensor).__name__} without plain memory takes part")
            self._seen(tensor, CONSTANT if key in self._weights else DATA)
            known = self._known[id(tensor)]
        elif known.version != self._versions.get(key, 0):
            self.refuse("memory is written by one tensor and read by another")
        if self.levels[known.slot] < LAYER:
            self.values.setdefault(known.slot, tensor)
            self._used.append((key, known.version, known.slot))
        return known.slot

    def _new(self, tensor: Tensor, level: int) -> int:
        self.levels.append(level)
        self.specs.append(Spec(tensor.shape, tensor.dtype))
        return len(self.levels) - 1

    def _made(self, tensor: Tensor, level: int) -> int:
        """Return a slot for a tensor in memory of its own."""
        key = storage_of(tensor)
        self._fresh(key)
        if level == LAYER:
            self._behind.add(key)
        return self._seen(tensor, level)

    def _fresh(self, key: int) -> None:
        """Forget what memory that was given back, and is in use again, once held."""
        self._versions.pop(key, None)
        self._behind.discard(key)

    def _seen(self, tensor: Tensor, level: int, *, again: bool = False) -> int:
        slot, number = self._new(tensor, level), id(tensor)
        if again and number in self._known:
            alive = self._known[number].alive
        else:
            alive = weakref.ref(tensor, lambda _: self._known.pop(number, None))
        self._known[number] = _Known(slot, self._versions.get(storage_of(tensor), 0), alive)
        return slot


def name_of(func: Any) -> str:
    """Return an operator's name without its namespace."""
    return str(func._schema.name.split("::")[1])


def _functional(func: Any) -> Any:
    """Return the operator that gives what ``func`` writes, such as add for add_; None where there is none."""
    namespace, name = func._schema.name.split("::")
    if not name.endswith("_") or name.endswith("__"):
        return None
    try:
        twin = getattr(getattr(getattr(torch.ops, namespace), name[:-1]), func._overloadname)
    except AttributeError:
        return None
    mine, others = func._schema.arguments, twin._schema.arguments
    return twin if [a.name for a in mine] == [a.name for a in others] else None
