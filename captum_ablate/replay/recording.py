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
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from captum_ablate.data import Batch, call
from captum_ablate.layers import ForwardFunc
from captum_ablate.replay.effects import Effects, storage_of
from captum_ablate.replay.intercept import watching
from captum_ablate.replay.recorder import Kept, Recorder, Storage
from captum_ablate.replay.site import Site
from captum_ablate.replay.stage import CannotReplay, Path, Stage


@dataclass
class Recording:
    """A recorded forward pass of ``batch``: ``activation`` of the layer, intact ``outputs``, and what to serve."""

    forward_func: ForwardFunc
    site: Site
    batch: Batch
    path: Path
    activation: Tensor
    outputs: Any
    kept: dict[tuple[int, int], Kept]
    storages: dict[int, Storage]
    layer_output: tuple[list[Any], TreeSpec] | None

    def replay(self, ablated: Tensor, watch: Any = None) -> Any:
        """Return the model's outputs with ``ablated`` as the layer's output; ``watch`` is a context for the run."""
        player = _Player(self)
        inputs, extra = player.fresh((self.batch.inputs, self.batch.additional_forward_args))
        with ExitStack() as stack:
            # hooked always: PyTorch's transformers take another path through modules that have a hook
            stack.enter_context(self.site.hooked(lambda output: player.replace(output, ablated)))
            if self.layer_output is not None:
                player.layer_result = self.site.with_part(player.serve(self.layer_output), ablated)
            if watch is not None:
                stack.enter_context(watch)
            stack.enter_context(watching(player))
            outputs = self.forward_func(*inputs, *extra)
        if not player.past_layer:
            raise CannotReplay("the layer did not run when the forward pass ran again")
        return outputs


class _Player(Stage):
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
    recorder = Recorder(site, path)
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
