"""Check before use that the model repeats itself, and that a replay equals a full forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from captum_ablate.ablation.agreement import difference, equal
from captum_ablate.ablation.full_passes import FullPasses
from captum_ablate.ablation.hook_loop import Probe, probe
from captum_ablate.ablation.metrics import class_outputs
from captum_ablate.ablation.plan import Plan
from captum_ablate.ablation.ready import Ready, casts_as_recorded
from captum_ablate.ablation.recording import Recording, record
from captum_ablate.ablation.site import Site
from captum_ablate.ablation.stage import CannotReplay, Path
from captum_ablate.ablation.weights import Weights
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.model import ForwardFunc, has_hooks
from captum_ablate.inputs.unchanged import unchanged

TRIAL_SAMPLES = 2
"""Samples of the checks before use: enough to find a network that mixes samples."""


class Trial:
    """Find the path to the layer and try a replay, once a shape of inputs; ``why_no_tape`` if modules must replay."""

    def __init__(self, passes: FullPasses, plan: Plan, weights: Weights) -> None:
        self._passes, self._plan, self._weights = passes, plan, weights
        self._path: Path | None = None
        self._tried: set[tuple[Any, ...]] = set()
        self.why_no_tape: str | None = None
        if isinstance(passes.forward_func, nn.Module) and has_hooks(passes.forward_func):
            self.why_no_tape = "modules have hooks, which must see their calls"

    def of(self, batch: Batch, first: int, seen: Probe | None) -> None:
        """Try a few samples of ``batch``, or those of the probe ``seen`` if their shape is the same."""
        key = _input_shapes(batch)
        if key in self._tried:
            return
        forward_func, sites = self._passes.forward_func, self._passes.sites
        known = seen if seen is not None and _input_shapes(seen.batch) == key else None
        try:
            with unchanged(forward_func):  # what a model keeps from its first call must come from a whole batch
                few = batch.take(slice(TRIAL_SAMPLES))
                self._check(known or probe(forward_func, sites, few), first)
        except Exception:  # for example a model made for one batch size
            self._check(probe(forward_func, sites, batch), first)
        self._tried.add(key)

    def record(self, batch: Batch, first: int, *, with_prefix: bool = False) -> Recording:
        """Return ``batch`` recorded, by a path to the layer that was tried."""
        passes = self._passes
        assert self._path is not None
        try:
            return record(passes.forward_func, passes.sites, batch, self._path, with_prefix=with_prefix)
        except CannotReplay:  # the path to the layer depends on the data
            self._check(probe(passes.forward_func, passes.sites, batch), first)
            return record(passes.forward_func, passes.sites, batch, self._path, with_prefix=with_prefix)

    def _check(self, seen: Probe, first: int) -> None:
        """Check that the model repeats itself, and that a half-ablated replay equals a full forward pass."""
        passes = self._passes
        seen = passes.put_in_order(seen)
        batch, self._path = seen.batch, seen.path
        if self._path is None:
            raise CannotReplay("the layer runs in another thread, or out of reach")
        with torch.no_grad():
            recording = record(passes.forward_func, passes.sites, batch, self._path)
            passes.check_repeats(seen.outputs, recording.outputs)
            ready = Ready(recording, passes.references, first, self._weights)
            mask = self._plan.mask(self._plan.half, ready.device)
            full = passes.ablated(batch, mask, first)
            if ready.has_tape and self.why_no_tape is None:
                self.why_no_tape = _why_not_equal(ready, mask, full)
                if self.why_no_tape is None:
                    return
            check_replay(ready.replay(mask), full)


def _why_not_equal(ready: Ready, mask: Tensor, full: Any) -> str | None:
    try:
        with casts_as_recorded(ready.taken.batch):
            again = ready.plain.one(mask)
        if equal(again, class_outputs(full)):
            return None
        wrong = difference(again, full)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return f"the operators after the layer, run again, differ from a full forward pass by {wrong:.2g}"


def check_replay(replayed: Any, full: Any) -> None:
    """Raise if a replay differs from a full forward pass."""
    if not equal(replayed, full):
        raise CannotReplay(f"a replay differs from the full forward pass by {difference(replayed, full):.2g}")


def probe_few(forward_func: ForwardFunc, sites: Sequence[Site], batch: Batch) -> Probe:
    """Run a few samples of ``batch`` through the model, or all if it does not take few, and leave no trace."""
    with unchanged(forward_func):
        try:
            return probe(forward_func, sites, batch.take(slice(TRIAL_SAMPLES)))
        except Exception:  # a model made for one batch size, or the user's mistake, which the next pass raises again
            return probe(forward_func, sites, batch)


def _input_shapes(batch: Batch) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(x.shape[1:]) for x in tree_leaves(batch.inputs) if isinstance(x, Tensor))
