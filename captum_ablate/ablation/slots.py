"""Number the tensors of a forward pass: one slot for each content that a tensor has had.

Tensors may share memory, and memory may be overwritten. A slot stands for one version of it.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from captum_ablate.ablation.effects import storage_of, tensors_in

CONSTANT, DATA, LAYER = 0, 1, 2
"""Level of a tensor, what it depends on: weights alone, the inputs too, or the ablated activations."""


@dataclass(frozen=True)
class Spec:
    """Shape and type of a slot's tensor in the recording."""

    shape: torch.Size
    dtype: torch.dtype


@dataclass
class _Known:
    """A tensor that was seen: its slot, its memory, and the version of that memory."""

    slot: int
    memory: int
    version: int
    alive: Any


class Slots:
    """The slots of one forward pass: ``levels`` and ``specs`` by slot."""

    def __init__(self, model: nn.Module) -> None:
        self.levels: list[int] = []
        self.specs: list[Spec] = []
        self.dependent: set[int] = set()
        """Memory of tensors that depend on the ablation."""
        self.weights = {storage_of(t) for t in [*model.parameters(), *model.buffers()]}
        self.held = {storage_of(t) for module in model.modules() for t in _tensors_of(module)}
        """Memory of tensors that modules hold as attributes."""
        self._known: dict[int, _Known] = {}
        self._versions: dict[int, int] = {}

    def version(self, key: int) -> int:
        """Return how often memory was written to since it was made."""
        return self._versions.get(key, 0)

    def slot_of(self, tensor: Tensor) -> int | None:
        """Return the slot of a tensor, or None if it was never seen or another tensor wrote to its memory."""
        known = self._known.get(id(tensor))
        key = storage_of(tensor)
        is_current = known is not None and known.memory == key and known.version == self.version(key)
        return known.slot if known is not None and is_current else None

    def is_stale(self, tensor: Tensor) -> bool:
        """Tell whether another tensor wrote to a tensor's memory after the tensor was seen."""
        return id(tensor) in self._known and self.slot_of(tensor) is None

    def level_of(self, tensor: Tensor) -> int:
        """Return the level of a tensor."""
        key, slot = storage_of(tensor), self.slot_of(tensor)
        if slot is not None:
            return self.levels[slot]
        if key in self.dependent:
            return LAYER
        return CONSTANT if key in self.weights else DATA

    def level(self, *values: Any) -> int:
        """Return the highest level of the tensors among some arguments."""
        return max((self.level_of(x) for x in tensors_in(values)), default=CONSTANT)

    def new(self, tensor: Tensor, level: int) -> int:
        """Return a new slot that belongs to no tensor yet."""
        self.levels.append(level)
        self.specs.append(Spec(tensor.shape, tensor.dtype))
        return len(self.levels) - 1

    def seen(self, tensor: Tensor, level: int) -> int:
        """Return a new slot for a tensor as it is now."""
        slot, number = self.new(tensor, level), id(tensor)
        if number in self._known:
            alive = self._known[number].alive
        else:
            alive = weakref.ref(tensor, lambda _: self._known.pop(number, None))
        key = storage_of(tensor)
        self._known[number] = _Known(slot, key, self.version(key), alive)
        return slot

    def made(self, tensor: Tensor, level: int) -> int:
        """Return a slot for a tensor in new memory of its own."""
        key = storage_of(tensor)
        self._versions.pop(key, None)  # freed memory that is in use again: forget what it held
        self.dependent.discard(key)
        if level == LAYER:
            self.dependent.add(key)
        return self.seen(tensor, level)

    def written(self, tensor: Tensor, level: int) -> int:
        """Return a slot for a tensor that was just written to."""
        key = storage_of(tensor)
        self._versions[key] = self.version(key) + 1
        if level == LAYER:
            self.dependent.add(key)
        return self.seen(tensor, level)


_EVERYWHERE = frozenset(vars(nn.Module()))
"""Attributes of every module: weights, buffers and children, which are known already, and hooks."""


def _tensors_of(module: nn.Module) -> list[Tensor]:
    """Return the tensors among a module's own attributes, also in containers."""
    own = {name: value for name, value in module.__dict__.items() if name not in _EVERYWHERE}
    return [leaf for leaf in tree_leaves(own) if isinstance(leaf, Tensor)]
