"""The fastest exact way to a metric under many masks: record once per batch, replay or add up, and check.

The loops stand in this order: batches outside, masks inside. One recording serves every mask, equal masks run once, and
memory is one batch. A batch whose check fails is thrown away and done again by the plain hook loop, which is said once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from captum_ablate.activations import check_activations
from captum_ablate.data import Batch
from captum_ablate.layers import ForwardFunc
from captum_ablate.metrics import Metric, check_labels, class_outputs
from captum_ablate.replay.affine import AffineTail, affine_tail
from captum_ablate.replay.agreement import difference, equal, is_finite
from captum_ablate.replay.hook_loop import Probe, full_forward, probe
from captum_ablate.replay.plan import Plan
from captum_ablate.replay.recording import Recording, record, unablated
from captum_ablate.replay.reference import Reference
from captum_ablate.replay.site import Site
from captum_ablate.replay.stage import CannotReplay, Path
from captum_ablate.unchanged import unchanged
from captum_ablate.warning import warn

TRIAL_SAMPLES = 2
"""Samples of the checks before use: enough for a network that mixes samples to show it."""

Outputs = Iterator[tuple[int, Any]]


@dataclass(frozen=True)
class Measured:
    """``intact [n]`` and ``values [masks, n]`` of the metric, ``target [n]``, and how it was computed."""

    intact: Tensor
    values: Tensor
    target: Tensor
    engine: str


class Engine:
    """Measures a metric under every mask of a plan, batch by batch."""

    def __init__(
        self,
        forward_func: ForwardFunc,
        site: Site,
        reference: Reference,
        metric: Metric,
        plan: Plan,
        tick: Callable[[], object] = lambda: None,
    ) -> None:
        self.forward_func, self.site = forward_func, site
        self.reference, self.metric, self.plan, self.tick = reference, metric, plan, tick
        self._probe: Probe | None = None
        self._path: Path | None = None
        self._tried: set[tuple[Any, ...]] = set()
        self._why_hooks: str | None = None
        self._ways: set[str] = set()
        self._tail: AffineTail | str | None = None
        self._largest_output: Any = None
        if not isinstance(forward_func, nn.Module):
            self._why_hooks = "forward_func is not an nn.Module"

    def run(self, batches: Iterable[Batch], seen: Probe | None = None) -> Measured:
        """Return the metric of every sample, intact and under every mask; ``seen`` saves the trial a forward pass."""
        self._probe = seen
        tables: list[Tensor] = []
        targets, first = [], 0
        last: tuple[Batch, Tensor] | None = None
        for batch in batches:
            table, reference = self._batch(batch, first)
            if not bool(torch.isfinite(table).all()):
                full_forward(self.forward_func, self.site, batch, self._check_finite(batch, len(tables)))
                raise ValueError(
                    f"the metric is NaN or infinite for some samples with units of {self.site.name!r} ablated; "
                    "check the model's outputs, the metric and the reference"
                )
            first += len(batch.target)
            last = batch, reference
            tables.append(table.cpu())
            targets.append(batch.target.cpu())
        assert last is not None
        if self._why_hooks is None and not self._largest_is_right(*last):
            self._fall_back("the last step differs from a full forward pass")
            self._ways = set()
            return self.run(batches)
        table = torch.cat(tables, dim=1)
        return Measured(table[0], table[1:], torch.cat(targets), self.description)

    def _check_finite(self, batch: Batch, number: int) -> Callable[[Tensor], Tensor]:
        """Return a hook that raises where the layer's own activations are the ones that are not finite."""

        def check(activation: Tensor) -> Tensor:
            check_activations(self.site.axis.pool(activation), len(batch.target), self.site.name, number)
            return activation

        return check

    @property
    def description(self) -> str:
        """How the outputs were computed: "replay", "closed form" or "hook loop (reason)"."""
        names = sorted(self._ways) or ["hook loop"]
        return " and ".join(f"{n} ({self._why_hooks})" if n == "hook loop" else n for n in names)

    def _batch(self, batch: Batch, first: int) -> tuple[Tensor, Tensor]:
        """Return the metric ``[1 + masks, n]`` of one batch, intact first, and the reference values used."""
        if self._why_hooks is not None:
            return self._hooked(batch, first)
        try:
            return self._replayed(batch, first)
        except CannotReplay as error:
            reason = str(error)
        except Exception as error:  # the fault of the replay or of the user; the hook loop tells
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        result = self._hooked(batch, first)
        self._fall_back(reason)
        return result

    def _fall_back(self, reason: str) -> None:
        self._why_hooks = reason
        warn(
            f"{self.site.name!r}: replaying is not possible ({reason}); full forward passes are used instead, which "
            "are exact but slower"
        )

    def _replayed(self, batch: Batch, first: int) -> tuple[Tensor, Tensor]:
        self._try_out(batch, first)
        with torch.no_grad():
            recording = self._record(batch, first)
            reference = self.reference(recording.activation, batch.target, first)
            closed = self._closed_form(batch, recording, reference)
            table = self._table(batch, recording.outputs, closed or self._replays(recording, reference))
            if closed is None:
                self._check_replay(recording.replay(unablated(self.site, recording.activation)), recording.outputs)
        self._ways.add("replay" if closed is None else "closed form")
        return table, reference

    def _record(self, batch: Batch, first: int) -> Recording:
        assert self._path is not None
        try:
            return record(self.forward_func, self.site, batch, self._path)
        except CannotReplay:  # the way to the layer depends on the data
            self._trial(probe(self.forward_func, self.site, batch), first)
            return record(self.forward_func, self.site, batch, self._path)

    def _try_out(self, batch: Batch, first: int) -> None:
        """Make the trial, once per shape of inputs, on a few samples: those of the probe where they have that shape."""
        key = _input_shapes(batch)
        if key in self._tried:
            return
        seen = self._probe if self._probe is not None and _input_shapes(self._probe.batch) == key else None
        try:
            with unchanged(self.forward_func):  # what a model keeps from its first call is to come from a whole batch
                self._trial(seen or probe(self.forward_func, self.site, batch.take(slice(TRIAL_SAMPLES))), first)
        except Exception:  # a model made for one batch size, say
            self._trial(probe(self.forward_func, self.site, batch), first)
        self._tried.add(key)

    def _trial(self, seen: Probe, first: int) -> None:
        """Check that the model repeats itself, and that a half-ablated replay is a full forward pass."""
        batch, self._path = seen.batch, seen.path
        if self._path is None:
            raise CannotReplay("the layer runs in another thread, or out of reach")
        with torch.no_grad():
            recording = record(self.forward_func, self.site, batch, self._path)
            self._check_repeats(seen.outputs, recording.outputs)
            reference = self.reference(recording.activation, batch.target, first)
            mask = self.plan.mask(self.plan.half, recording.activation.device)
            replayed = recording.replay(self.site.ablated(recording.activation, mask, reference))
        full = self._full(batch, mask, reference)
        self._check_replay(replayed, full)

    def _check_replay(self, replayed: Any, full: Any) -> None:
        if not equal(replayed, full):
            raise CannotReplay(f"a replay differs from the full forward pass by {difference(replayed, full):.2g}")

    def _check_repeats(self, intact: Any, again: Any) -> None:
        """Refuse the model if an intact pass and one that is hooked, but ablates nothing, differ."""
        if not equal(intact, again):
            raise ValueError(
                "the model does not repeat itself: two intact forward passes on the same batch differ (by "
                f"{difference(intact, again):.2g}). Random layers, state kept between calls, or code that needs the "
                f"very tensor that {self.site.name!r} gave would do this; ablation cannot be told from it"
            )

    def _replays(self, recording: Recording, reference: Tensor) -> Outputs:
        for number in range(len(self.plan)):
            mask = self.plan.mask(number, recording.activation.device)
            yield number, recording.replay(self.site.ablated(recording.activation, mask, reference))

    def _closed_form(self, batch: Batch, recording: Recording, reference: Tensor) -> Outputs | None:
        """Return the outputs by the closed form, where the tail is affine and it pays."""
        if isinstance(self._tail, str) or not is_finite(recording.activation, reference):
            return None  # infinity has no share: infinity times 0 is not 0
        n, outputs = len(recording.activation), class_outputs(recording.outputs)
        if self._tail is None:
            wide = isinstance(outputs, Tensor) and len(self.plan) < 4 + 3 * (outputs.shape[-1] / n)
            if wide:  # backward passes for the Jacobian would cost more than the replays
                return None
            self._tail = affine_tail(self.forward_func, recording, reference)
            if isinstance(self._tail, str):
                return None
        everything = torch.ones(self.plan.units, dtype=torch.bool, device=recording.activation.device)
        ablated = class_outputs(recording.replay(self.site.ablated(recording.activation, everything, reference)))
        assert isinstance(ablated, Tensor)
        if not equal(self._tail.intact(recording, reference, ablated), outputs):
            self._tail = "the closed form does not give the recorded outputs"
            return None
        if "closed form" not in self._ways and not self._half_is_right(batch, recording, reference, ablated):
            self._tail = "the closed form does not give the half-ablated outputs"
            return None
        return self._tail.outputs(recording, reference, self.plan, ablated)

    def _half_is_right(self, batch: Batch, recording: Recording, reference: Tensor, ablated: Tensor) -> bool:
        """Check the closed form against a full forward pass once, at the half-ablated step."""
        assert isinstance(self._tail, AffineTail)
        half = self.plan.half
        closed = next(o for k, o in self._tail.outputs(recording, reference, self.plan, ablated) if k == half)
        mask = self.plan.mask(half, recording.activation.device)
        full = self._full(batch, mask, reference)
        return equal(closed, class_outputs(full))

    def _hooked(self, batch: Batch, first: int) -> tuple[Tensor, Tensor]:
        kept: list[Tensor] = []

        def keep(activation: Tensor) -> Tensor:
            kept.append(activation.detach().clone())
            return unablated(self.site, activation)

        intact = full_forward(self.forward_func, self.site, batch, keep)
        with torch.no_grad():
            reference = self.reference(kept[0], batch.target, first)
        if "hook loop" not in self._ways:
            self._check_repeats(full_forward(self.forward_func, self.site, batch), intact)

        def outputs() -> Outputs:
            for number in range(len(self.plan)):
                yield number, self._full(batch, self.plan.mask(number, kept[0].device), reference)

        table = self._table(batch, intact, outputs())
        if "hook loop" not in self._ways:
            self._check_repeats(intact, self._unablated(batch))
        self._ways.add("hook loop")
        return table, reference

    def _unablated(self, batch: Batch) -> Any:
        """Return the outputs of a full forward pass, hooked, with no unit ablated."""
        return full_forward(self.forward_func, self.site, batch, lambda a: unablated(self.site, a))

    def _full(self, batch: Batch, mask: Tensor, reference: Tensor) -> Any:
        """Return the outputs of a full forward pass with the units of ``mask`` ablated."""
        return full_forward(self.forward_func, self.site, batch, lambda a: self.site.ablated(a, mask, reference))

    def _table(self, batch: Batch, intact: Any, outputs: Outputs) -> Tensor:
        check_labels(self.metric, class_outputs(intact), batch.target)
        first = self._value(intact, batch)
        table = first.new_empty(1 + len(self.plan), len(first))
        table[0] = first
        for number, output in outputs:
            table[1 + number] = self._value(output, batch)
            if number == self.plan.largest:
                self._largest_output = output
            self.tick()
        return table

    def _value(self, outputs: Any, batch: Batch) -> Tensor:
        with torch.no_grad():
            own = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, class_outputs(outputs))
            value = self.metric(own, batch.target.clone())  # copies: a metric may write into what it gets
        if not isinstance(value, Tensor) or value.shape != batch.target.shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"metric must return one value per sample, [{len(batch.target)}]; got {got}")
        return value.detach() if value.is_floating_point() else value.detach().float()

    def _largest_is_right(self, batch: Batch, reference: Tensor) -> bool:
        """Check the largest step of the last batch once more, against a full forward pass.

        A few samples tell, unless the network mixes samples: then it is the whole batch.
        """
        n, mask = len(batch.target), self.plan.mask(self.plan.largest, reference.device)
        few = slice(TRIAL_SAMPLES)

        def first(value: Any) -> Any:
            return value[few] if isinstance(value, Tensor) and value.ndim and len(value) == n else value

        found = class_outputs(self._largest_output)
        try:
            if equal(self._full(batch.take(few), mask, first(reference)), tree_map(first, found)):
                return True
        except Exception:  # a model made for one batch size, say
            pass
        return equal(self._full(batch, mask, reference), found)


def probe_few(forward_func: ForwardFunc, site: Site, batch: Batch) -> Probe:
    """Run a few samples of ``batch`` through the model, or all where it does not take few; leave no trace."""
    with unchanged(forward_func):
        try:
            return probe(forward_func, site, batch.take(slice(TRIAL_SAMPLES)))
        except Exception:  # a model made for one batch size, or the user's mistake, which shows again
            return probe(forward_func, site, batch)


def _input_shapes(batch: Batch) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(x.shape[1:]) for x in tree_leaves(batch.inputs) if isinstance(x, Tensor))
