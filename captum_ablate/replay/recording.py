"""One forward pass kept so that what follows the layer can run again, and again, without what comes before it.

While the pass runs again, calls that modules receive directly from the layer's ancestors before the layer are answered
with what they returned, the layer's output is the ablated one, and everything later runs live. No graph is captured, so
any Python control flow works. A call is answered only if answering it cannot be told from running it:

- its outputs are tensors (in containers, rebuilt each time) that it made itself, or that were kept before;
- it left the containers that it was given as they were, and wrote to nothing but its own tensors. One exception: a kept
  tensor that nobody looked at in between, as in ``relu_(bn(x))``; then its final content is served from the start.

Every other call runs live. A kept tensor that live code writes to is served as a fresh copy in every replay.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from captum_ablate.data import Batch, call
from captum_ablate.layers import ForwardFunc
from captum_ablate.replay.effects import Effects, storage_of
from captum_ablate.replay.intercept import watching
from captum_ablate.replay.site import Site

Path = tuple[int, ...]
"""Where the layer is called: the number of the call in each frame, from the outermost call down to the layer's."""

_IMMUTABLE = (type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)


class CannotReplay(Exception):
    """A replay is not possible, or did not come out as recorded; the message is the reason."""


class PathFinder:
    """Watches a forward pass for the path of calls that leads to the layer."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._counts = [0]

    def call(self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Count the call in its frame, and open a frame of its own."""
        self._counts[-1] += 1
        self._counts.append(0)
        try:
            return original(module, *args, **kwargs)
        finally:
            self._counts.pop()

    def at_layer(self) -> None:
        """Note the path: the layer is running now."""
        self.path = tuple(count - 1 for count in self._counts[:-1])


@dataclass
class _Storage:
    """Memory of a kept tensor: whether live code looked at it, and its content before live code wrote to it."""

    tensor: Tensor
    looked_at: bool = False
    content: torch.UntypedStorage | None = None


@dataclass
class _Kept:
    """A call that an ancestor made: its module, and its output, or None where it is to run live."""

    module: nn.Module
    output: tuple[list[Any], TreeSpec] | None


@dataclass
class _CallEffects:
    """What a call under way has done so far."""

    made: set[int] = field(default_factory=set)
    looked_at: set[int] = field(default_factory=set)
    quietly_written: set[int] = field(default_factory=set)
    must_run: bool = False


class _Stage:
    """The frames of the layer's ancestors, walked alike in recording and in replay."""

    def __init__(self, site: Site, path: Path) -> None:
        self.site, self.path = site, path
        self.calls = [0]
        self.past_layer = False

    def call(self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        if self.past_layer and module is self.site.layer:
            raise CannotReplay("the layer runs more than once")
        if self.past_layer or self.is_inside():
            return original(module, *args, **kwargs)
        depth, index = len(self.calls) - 1, self.calls[-1]
        self.calls[-1] += 1
        if index < self.path[depth]:
            return self.before_layer((depth, index), original, module, args, kwargs)
        is_layer = depth == len(self.path) - 1
        if index > self.path[depth] or is_layer != (module is self.site.layer):
            raise CannotReplay("the calls before the layer differ from one forward pass to the next")
        if is_layer and not self.site.at_input:
            return self.at_layer(original, module, args, kwargs)
        self.calls.append(0)
        try:
            output = original(module, *args, **kwargs)
        finally:
            self.calls.pop()
        if not self.past_layer:
            raise CannotReplay("the calls before the layer differ from one forward pass to the next")
        return output

    def is_inside(self) -> bool:
        raise NotImplementedError

    def before_layer(
        self, place: tuple[int, int], original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any
    ) -> Any:
        raise NotImplementedError

    def at_layer(self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError


class _Recorder(_Stage):
    """Keeps the calls before the layer, and what every operator does to the kept tensors."""

    def __init__(self, site: Site, path: Path) -> None:
        super().__init__(site, path)
        self.kept: dict[tuple[int, int], _Kept] = {}
        self.storages: dict[int, _Storage] = {}
        self.inside: _CallEffects | None = None
        self.layer = _CallEffects()

    def keep(self, tensor: Tensor) -> None:
        key = storage_of(tensor)
        if key:
            self.storages.setdefault(key, _Storage(tensor))

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
            self.kept[place] = _Kept(module, None)
        else:
            for leaf in leaves:
                if isinstance(leaf, Tensor):
                    self.keep(leaf)
            self.kept[place] = _Kept(module, (leaves, spec))
        return output

    def at_layer(self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        self.inside = self.layer
        try:
            return original(module, *args, **kwargs)
        finally:
            self.inside = None

    def layer_output(self, leaves: list[Any]) -> bool:
        """Note the layer's intact output, inside its hook; tell whether the layer must run live in replays."""
        self.past_layer, self.inside = True, None
        if self.layer.must_run or not all(self._servable(leaf, self.layer) for leaf in leaves):
            self._settle_live(self.layer)
            return True
        for leaf in leaves:
            if isinstance(leaf, Tensor):
                self.keep(leaf)
        return False

    def before(self, reads: set[int], writes: set[int]) -> None:
        """Take in what the next operator will do."""
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
        """Take in the memory that an operator made."""
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
    """Return what a call receives, down to the identity of each thing: a list may be filled by the call."""
    leaves, spec = tree_flatten(value)
    return spec, [(id(x), _inside(x)) for x in leaves]


def _inside(leaf: Any) -> Any:
    if isinstance(leaf, (*_IMMUTABLE, Tensor, nn.Module)):
        return None
    if isinstance(leaf, (set, frozenset)):
        return {id(x) for x in leaf}
    return {name: id(x) for name, x in getattr(leaf, "__dict__", {}).items()}


def _remember_content(storage: _Storage) -> None:
    if storage.content is None:
        storage.content = storage.tensor.untyped_storage().clone()


@dataclass
class Recording:
    """A recorded forward pass of ``batch``: ``activation`` of the layer, intact ``outputs``, and what to serve."""

    forward_func: ForwardFunc
    site: Site
    batch: Batch
    path: Path
    activation: Tensor
    outputs: Any
    kept: dict[tuple[int, int], _Kept]
    storages: dict[int, _Storage]
    layer_output: tuple[list[Any], TreeSpec] | None

    def replay(self, ablated: Tensor, watch: Any = None) -> Any:
        """Return the model's outputs with ``ablated`` as the layer's output; ``watch`` is a context for the run."""
        player = _Player(self)
        inputs, extra = player.fresh((self.batch.inputs, self.batch.additional_forward_args))
        with ExitStack() as stack:
            if self.layer_output is None:
                stack.enter_context(self.site.hooked(lambda output: player.replace(output, ablated)))
            else:
                player.layer_result = self.site.with_part(player.serve(self.layer_output), ablated)
            if watch is not None:
                stack.enter_context(watch)
            stack.enter_context(watching(player))
            outputs = self.forward_func(*inputs, *extra)
        if not player.past_layer:
            raise CannotReplay("the layer did not run when the forward pass ran again")
        return outputs


class _Player(_Stage):
    """Answers the kept calls, and runs everything else."""

    def __init__(self, recording: Recording) -> None:
        super().__init__(recording.site, recording.path)
        self.recording = recording
        self.layer_result: Any = None
        self._inside = False
        self._copies: dict[int, torch.UntypedStorage] = {}

    def is_inside(self) -> bool:
        return self._inside

    def before_layer(
        self, place: tuple[int, int], original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any
    ) -> Any:
        kept = self.recording.kept[place]
        if kept.module is not module:
            raise CannotReplay("the calls before the layer differ from one forward pass to the next")
        return self._run(original, module, args, kwargs) if kept.output is None else self.serve(kept.output)

    def at_layer(self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        if self.recording.layer_output is None:
            return self._run(original, module, args, kwargs)
        self.past_layer = True
        return self.layer_result

    def replace(self, output: Any, ablated: Tensor) -> Any:
        self.past_layer = True
        return self.site.with_part(output, ablated)

    def serve(self, output: tuple[list[Any], TreeSpec]) -> Any:
        leaves, spec = output
        return tree_unflatten([self._fresh_leaf(leaf) for leaf in leaves], spec)

    def fresh(self, value: Any) -> Any:
        return self.serve(tree_flatten(value))

    def _run(self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        self._inside = True
        try:
            return original(module, *args, **kwargs)
        finally:
            self._inside = False

    def _fresh_leaf(self, leaf: Any) -> Any:
        storage = self.recording.storages.get(storage_of(leaf)) if isinstance(leaf, Tensor) else None
        if storage is None or storage.content is None:
            return leaf
        key = storage_of(leaf)
        if key not in self._copies:
            self._copies[key] = storage.content.clone()
        return leaf.new_empty(0).set_(
            self._copies[key], leaf.storage_offset(), leaf.size(), leaf.stride()
        )  # same place, same strides, in this replay's own copy of the memory


def record(forward_func: ForwardFunc, site: Site, batch: Batch, path: Path) -> Recording:
    """Run ``forward_func`` once on ``batch`` and return what replays need; the layer is hooked, ablating nothing."""
    recorder = _Recorder(site, path)
    seen: dict[str, Any] = {}

    def note(output: Any) -> Any:
        if seen:
            raise CannotReplay("the layer runs more than once")
        part = site.part(output)
        leaves, spec = tree_flatten(output)
        if site.at_input:
            recorder.past_layer, run_layer = True, True
        else:
            run_layer = recorder.layer_output(leaves)
        seen["activation"] = part.detach().clone()
        seen["layer_output"] = None if run_layer else (leaves, spec)
        return site.with_part(output, unablated(site, part))

    def run(*inputs: Any) -> Any:
        for leaf in tree_leaves(inputs):
            if isinstance(leaf, Tensor):
                recorder.keep(leaf)
        seen_inputs.extend(inputs)
        with watching(recorder), Effects(recorder.before, recorder.after):
            return forward_func(*inputs)

    seen_inputs: list[Any] = []
    with site.hooked(note):
        outputs = call(run, batch)
    if not seen:
        raise CannotReplay("the layer did not run")
    k = len(batch.inputs)
    own = Batch(tuple(seen_inputs[:k]), batch.target, tuple(seen_inputs[k:]))
    return Recording(
        forward_func,
        site,
        own,
        path,
        seen["activation"],
        outputs,
        recorder.kept,
        recorder.storages,
        seen["layer_output"],
    )


def unablated(site: Site, activation: Tensor) -> Tensor:
    """Return ``activation`` with no unit ablated: a new tensor, made by the operation that ablates."""
    nothing = torch.zeros(site.axis.count(activation.shape), dtype=torch.bool, device=activation.device)
    return site.ablated(activation, nothing, activation.new_zeros(()))
