"""Watch one forward pass: find the calls that replays can serve, and those that must run again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten

from captum_ablate.ablation.effects import memory_of, storage_of
from captum_ablate.ablation.site import Site
from captum_ablate.ablation.stage import CannotReplay, Path, Stage

_IMMUTABLE = (type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)


@dataclass
class Storage:
    """Memory of a kept tensor: whether live code read it, and its content before live code wrote to it."""

    tensor: Tensor
    looked_at: bool = False
    content: torch.UntypedStorage | None = None


@dataclass
class Kept:
    """A call that an ancestor made: its module, and its output, or None if it must run live."""

    module: nn.Module
    output: tuple[list[Any], TreeSpec] | None


@dataclass
class _CallEffects:
    """Effects of the current call so far."""

    made: set[int] = field(default_factory=set)
    looked_at: set[int] = field(default_factory=set)
    quietly_written: set[int] = field(default_factory=set)
    must_run: bool = False


class Recorder(Stage):
    """Keep the calls before the layer, and what every operator does to the kept tensors."""

    def __init__(self, site: Site, path: Path) -> None:
        super().__init__(site, path)
        self.kept: dict[tuple[int, int], Kept] = {}
        self.storages: dict[int, Storage] = {}
        self.inside: _CallEffects | None = None
        self.layer = _CallEffects()

    def keep(self, tensor: Tensor) -> None:
        key = storage_of(tensor)
        if key:
            self.storages.setdefault(key, Storage(tensor))

    def is_inside(self) -> bool:
        return self.inside is not None

    def before_layer(
        self, place: tuple[int, int], original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any
    ) -> Any:
        effects = self.inside = _CallEffects()
        given = _content((args, kwargs))
        try:
            output = original(module, *args, **kwargs)
        finally:
            self.inside = None
        effects.must_run |= _content((args, kwargs)) != given
        leaves, spec = tree_flatten(output)
        if effects.must_run or not all(self._servable(leaf, effects) for leaf in leaves):
            self._settle_live(effects)
            self.kept[place] = Kept(module, None)
        else:
            for leaf in leaves:
                if isinstance(leaf, Tensor):
                    self.keep(leaf)
            self.kept[place] = Kept(module, (leaves, spec))
        return output

    def at_layer(self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        self.inside = self.layer
        try:
            return original(module, *args, **kwargs)
        finally:
            self.inside = None

    def layer_output(self, leaves: list[Any]) -> bool:
        """Note the layer's intact output, inside its hook, and tell whether the layer must run live in replays."""
        self.past_layer, self.inside = True, None
        if self.layer.must_run or not all(self._servable(leaf, self.layer) for leaf in leaves):
            self._settle_live(self.layer)
            return True
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                self.keep(leaf)
        return False

    def before(self, reads: set[int], writes: set[int]) -> None:
        """Note the storages that the next operator reads and writes."""
        effects, kept = self.inside, self.storages
        for key in reads & kept.keys():
            if effects is not None:
                effects.looked_at.add(key)
            else:
                kept[key].looked_at = True
        for key in writes - {0}:
            storage = kept.get(key)
            if effects is None:
                if storage is not None:
                    _remember_content(storage)
            elif storage is None:
                effects.must_run |= key not in effects.made
            elif storage.looked_at or storage.content is not None:
                effects.must_run = True
                _remember_content(storage)
            else:
                effects.quietly_written.add(key)

    def after(self, made: set[int]) -> None:
        """Note the memory that an operator made."""
        if self.inside is not None:
            self.inside.made |= made

    def _servable(self, leaf: Any, effects: _CallEffects) -> bool:
        if not isinstance(leaf, Tensor):
            return isinstance(leaf, _IMMUTABLE)
        if type(leaf) is not Tensor or leaf.requires_grad or leaf.layout is not torch.strided or leaf.is_quantized:
            return False
        key = storage_of(leaf)
        return key == 0 or ((key in effects.made or key in self.storages) and not leaf.is_conj() and not leaf.is_neg())

    def _settle_live(self, effects: _CallEffects) -> None:
        if effects.quietly_written:
            raise CannotReplay("a module writes in place to a tensor that others keep")
        for key in effects.looked_at:
            self.storages[key].looked_at = True


def _content(value: Any) -> tuple[Any, list[Any]]:
    """Return the identity of everything that a call receives: the call may fill a list."""
    leaves, spec = tree_flatten(value)
    return spec, [(id(x), _inside(x)) for x in leaves]


def _inside(leaf: Any) -> Any:
    if isinstance(leaf, (*_IMMUTABLE, Tensor, nn.Module)):
        return None
    if isinstance(leaf, (set, frozenset)):
        return {id(x) for x in leaf}
    return {name: id(x) for name, x in getattr(leaf, "__dict__", {}).items()}


def _remember_content(storage: Storage) -> None:
    if storage.content is None:
        storage.content = memory_of(storage.tensor).clone()
