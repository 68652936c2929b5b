"""Record one forward pass, so that its suffix can be replayed many times without the prefix.

In a replay, modules that the layer's ancestors call before the layer return what they returned in the recording. The
layer returns the ablated output, and everything after it runs live. No graph is captured, so any Python control flow
works. A call is served from the recording only if that cannot be told from running it:

- Its outputs are tensors, perhaps in containers, that it made itself or that were kept before.
- It left the containers among its arguments unchanged, and wrote to no tensors but its own. There is one exception: a
  kept tensor that nothing read in between, as in ``relu_(bn(x))``. Its final content is served from the start.

Every other call runs live. A kept tensor that live code writes to is served as a fresh copy in every replay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from captum_ablate.ablation.effects import Effects, storage_of
from captum_ablate.ablation.intercept import watching
from captum_ablate.ablation.metrics import class_outputs
from captum_ablate.ablation.numbers_seen import numbers_seen
from captum_ablate.ablation.prefix_tracer import PrefixTracer
from captum_ablate.ablation.recorder import Kept, Recorder, Storage
from captum_ablate.ablation.site import Site
from captum_ablate.ablation.stage import CannotReplay, Path, Stage
from captum_ablate.ablation.tape import Tape
from captum_ablate.ablation.tracer import Tracer
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.model import ForwardFunc

Replace = Callable[[Tensor], Tensor]


@dataclass
class Taken:
    """A batch whose layer has run, with all that the suffix needs under any mask.

    ``activations`` belong to the sites, in running order. ``outputs`` are intact. ``tape`` is the suffix, or the reason
    why there is none.
    """

    sites: tuple[Site, ...]
    batch: Batch
    activations: list[Tensor]
    outputs: Any
    tape: Tape | str

    @property
    def site(self) -> Site:
        """The first site, where a replay starts."""
        return self.sites[0]

    @property
    def activation(self) -> Tensor:
        """The activation of the first site."""
        return self.activations[0]


@dataclass
class Recording(Taken):
    """A recorded forward pass of ``batch``: what a replay serves, and what ran ``before`` the layer.

    ``before`` is the prefix tape, or the reason why there is none. It starts at the slots ``inputs``, one a tensor.
    """

    forward_func: nn.Module
    path: Path
    kept: dict[tuple[int, int], Kept]
    storages: dict[int, Storage]
    layer_output: tuple[list[Any], TreeSpec] | None
    before: Tape | str
    inputs: list[int]

    def replay(self, ablated: Tensor, later: Sequence[Replace] = (), watch: Any = None) -> Any:
        """Return the model's outputs with ``ablated`` at the first site and ``later`` applied at the others.

        The replay runs in the context ``watch``.
        """
        player = _Player(self)
        inputs, extra = player.fresh((self.batch.inputs, self.batch.additional_forward_args))
        with ExitStack() as stack:
            # always hooked: PyTorch's transformers take another path through modules that have a hook
            stack.enter_context(self.site.hooked(lambda output: player.replace(output, ablated)))
            for k, site in enumerate(self.sites[1:]):
                replace = later[k] if later else partial(unablated, site)
                stack.enter_context(site.hooked(partial(_replaced, site, replace)))
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
    """Serve the kept calls, and run everything else."""

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
        )  # same offset and strides, in this replay's own copy of the memory


def record(
    forward_func: ForwardFunc, sites: Sequence[Site], batch: Batch, path: Path, *, with_prefix: bool = False
) -> Recording:
    """Run ``forward_func`` once on ``batch``, with hooks that ablate nothing, and return what replays need.

    ``with_prefix`` also traces what runs before the layer, if there is one site.
    """
    assert isinstance(forward_func, nn.Module)
    recorded = _Pass(forward_func, sites, batch, path, with_prefix and len(sites) == 1)
    with ExitStack() as stack:
        for number, site in enumerate(sites):
            stack.enter_context(site.hooked(partial(recorded.note, number)))
        outputs = call(recorded.run, batch)
    return recorded.recording(outputs)


class _Pass:
    """A forward pass while it is recorded."""

    def __init__(self, model: nn.Module, sites: Sequence[Site], batch: Batch, path: Path, notes_all: bool) -> None:
        self.model, self.sites, self.batch, self.path = model, tuple(sites), batch, path
        self.notes_all = notes_all
        self.recorder = Recorder(sites[0], path)
        self.activations: dict[int, Tensor] = {}
        self.layer_output: tuple[list[Any], TreeSpec] | None = None
        self.inputs: tuple[Any, ...] = ()

    def run(self, *inputs: Any) -> Any:
        """Run the model while its calls and operators are watched."""
        tensors = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
        for tensor in tensors:
            self.recorder.keep(tensor)
        self.inputs = inputs
        self.tracer = Tracer(len(self.batch.target), PrefixTracer(self.model, tensors))
        recorder, tracer = self.recorder, self.tracer
        with watching(recorder), numbers_seen(tracer.looked_at), Effects(recorder.before, recorder.after, tracer):
            return self.model(*inputs)

    def note(self, number: int, output: Any) -> Any:
        """Note the activation of a site, and return it with no unit ablated."""
        if number in self.activations:
            raise CannotReplay("the layer runs more than once")
        site = self.sites[number]
        part = site.part(output)
        if number == 0:
            self._note_first(output)
        elif 0 not in self.activations:
            raise CannotReplay("the layers run in another order than on other data")
        self.tracer.paused = True
        self.activations[number] = part.detach().clone()
        intact = unablated(site, part)
        self.tracer.paused = False
        self.tracer.ablated(number, part, intact)
        return site.with_part(output, intact)

    def _note_first(self, output: Any) -> None:
        leaves, spec = tree_flatten(output)
        if self.sites[0].at_input:
            self.recorder.past_layer, run_layer = True, True
        else:
            run_layer = self.recorder.layer_output(leaves)
        self.layer_output = None if run_layer else (leaves, spec)

    def recording(self, outputs: Any) -> Recording:
        """Return the recording of the pass, which returned ``outputs``."""
        if len(self.activations) < len(self.sites):
            raise CannotReplay("the layer did not run")
        k = len(self.batch.inputs)
        own = self.batch._replace(inputs=self.inputs[:k], additional_forward_args=self.inputs[k:])
        tape = self.tracer.finish(class_outputs(outputs))
        before: Tape | str = "not traced"
        if self.notes_all:
            before = self.tracer.prefix.finish(tape) if isinstance(tape, Tape) else tape
        return Recording(
            self.sites,
            own,
            [self.activations[number] for number in range(len(self.sites))],
            outputs,
            tape,
            self.model,
            self.path,
            self.recorder.kept,
            self.recorder.storages,
            self.layer_output,
            before,
            self.tracer.prefix.inputs,
        )


def _replaced(site: Site, replace: Replace, output: Any) -> Any:
    return site.with_part(output, replace(site.part(output)))


def unablated(site: Site, activation: Tensor) -> Tensor:
    """Return ``activation`` with no unit ablated, as a new tensor made by the operator that ablates."""
    nothing = torch.zeros(site.axis.count(activation.shape), dtype=torch.bool, device=activation.device)
    return site.ablated(activation, nothing, activation.new_zeros(()))
