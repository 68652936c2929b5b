"""The fastest exact way to a metric under many masks: record once per batch, run the tape or add up, and check.

The loops stand in this order: batches outside, masks inside. One recording serves every mask, equal masks run once, and
memory is one batch. A batch whose check fails is thrown away and done again by the plain hook loop, which is said once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from captum_ablate.activations import check_activations
from captum_ablate.data import Batch
from captum_ablate.layers import ForwardFunc, has_hooks
from captum_ablate.metrics import Metric, accuracy, check_labels, class_outputs, is_named
from captum_ablate.replay.affine import AffineTail, affine_tail
from captum_ablate.replay.agreement import TOLERANCE, difference, equal, is_finite
from captum_ablate.replay.choice import Choice, Outputs, check_intact
from captum_ablate.replay.hook_loop import Probe, Replace, full_forward, probe
from captum_ablate.replay.plan import Plan
from captum_ablate.replay.program import RowReference
from captum_ablate.replay.recording import Recording, record, unablated
from captum_ablate.replay.reference import Reference
from captum_ablate.replay.site import Site
from captum_ablate.replay.stage import CannotReplay, Path
from captum_ablate.replay.strategy import Strategy
from captum_ablate.replay.tape import Tape
from captum_ablate.unchanged import unchanged
from captum_ablate.warning import warn

TRIAL_SAMPLES = 2
"""Samples of the checks before use: enough for a network that mixes samples to show it."""


@dataclass(frozen=True)
class Measured:
    """``intact [n]`` and ``values [masks, n]`` of the metric, ``target [n]``, and how it was computed."""

    intact: Tensor
    values: Tensor
    target: Tensor
    engine: str


@dataclass(frozen=True)
class Opened:
    """One batch: its ``intact`` outputs, and ``outputs(mask)`` with the units of ``mask`` ablated.

    ``mask`` is bool, ``[units]`` over the units of all sites, or ``[n, units]`` with a row for each sample.
    """

    intact: Any
    outputs: Callable[[Tensor], Any]


class Engine:
    """Measures a metric under every mask of a plan, batch by batch.

    ``sites`` with ``references``, one each; the plan's masks run over the units of all sites, ``Site.units`` says
    where.
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        sites: Sequence[Site],
        references: Sequence[Reference],
        metric: Metric,
        plan: Plan,
        tick: Callable[[float], object] = lambda images: None,
    ) -> None:
        self.forward_func, self.sites, self.references = forward_func, list(sites), list(references)
        self.metric, self.plan, self.tick = metric, plan, tick
        self._probe: Probe | None = None
        self._path: Path | None = None
        self._tried: set[tuple[Any, ...]] = set()
        self._why_hooks: str | None = None
        self._why_no_tape: str | None = None
        self._ways: set[str] = set()
        self._tail: AffineTail | str | None = None
        self._choice = Choice()
        self._largest_output: Any = None
        if not isinstance(forward_func, nn.Module):
            self._why_hooks = "forward_func is not an nn.Module"
        elif has_hooks(forward_func):
            self._why_no_tape = "modules have hooks, which are to see what happens"

    def run(self, batches: Iterable[Batch], seen: Probe | None = None) -> Measured:
        """Return the metric of every sample, intact and under every mask; ``seen`` saves the trial a forward pass."""
        self._probe = seen
        if seen is not None:
            self._put_in_order(seen)
        tables: list[Tensor] = []
        targets, first = [], 0
        last: tuple[Batch, int] | None = None
        for batch in batches:
            table = self._batch(batch, first)
            if not bool(torch.isfinite(table).all()):
                full_forward(self.forward_func, self.sites, batch, self._check_finite(batch, len(tables)))
                raise ValueError(
                    f"the metric is NaN or infinite for some samples with units of {self._names} ablated; "
                    "check the model's outputs, the metric and the reference"
                )
            last = batch, first
            first += len(batch.target)
            tables.append(table.cpu())
            targets.append(batch.target.cpu())
        assert last is not None
        if self._why_hooks is None and not self._largest_is_right(*last):
            self._fall_back("the last step differs from a full forward pass")
            self._ways = set()
            return self.run(batches)
        table = torch.cat(tables, dim=1)
        return Measured(table[0], table[1:], torch.cat(targets), self.description)

    @property
    def _names(self) -> str:
        return ", ".join(repr(site.name) for site in self.sites)

    def _put_in_order(self, seen: Probe) -> None:
        """Sort the sites by the order in which they ran."""
        if seen.order != tuple(range(len(self.sites))):
            self.sites = [self.sites[k] for k in seen.order]
            self.references = [self.references[k] for k in seen.order]
            self._probe = seen._replace(
                order=tuple(range(len(self.sites))), shapes=tuple(seen.shapes[k] for k in seen.order)
            )

    def _check_finite(self, batch: Batch, number: int) -> list[Replace]:
        """Return hooks that raise where a site's own activations are the ones that are not finite."""

        def check(site: Site, activation: Tensor) -> Tensor:
            check_activations(site.axis.pool(activation), len(batch.target), site.name, number)
            return activation

        return [partial(check, site) for site in self.sites]

    @property
    def description(self) -> str:
        """How the outputs were computed: "replay (...)", "closed form" or "hook loop (reason)"."""
        names = []
        for name in sorted(self._ways) or ["hook loop"]:
            detail = self._why_hooks if name == "hook loop" else ""
            if name == "replay" and self._choice.strategy is not None:
                detail = str(self._choice.strategy)
            names.append(f"{name} ({detail})" if detail else name)
        return " and ".join(names)

    def open(self, batch: Batch, first: int = 0) -> Opened:
        """Return one batch, opened: its outputs under any masks, also a mask of its own for each sample."""
        if self._why_hooks is None:
            try:
                self._try_out(batch, first)
                with torch.no_grad():
                    recording = self._record(batch, first)
                    references = self._rows_of(recording, first)
                return Opened(recording.outputs, partial(self._under, recording, references))
            except CannotReplay as error:
                self._fall_back(str(error))
        return Opened(self._unablated(batch), lambda mask: self._full(batch, mask, first))

    def _under(self, recording: Recording, references: Sequence[RowReference], mask: Tensor) -> Any:
        """Return the outputs under ``mask``, ``[units]`` or ``[n, units]``, by the operations of a full pass."""
        with torch.no_grad():
            if isinstance(recording.tape, Tape) and self._why_no_tape is None:
                with _casts_as_recorded(recording.batch):
                    program = self._choice.program(recording, references, Strategy())
                    return program.by_row(mask) if mask.ndim == 2 else program.one(mask)
            return self._replay(recording, references, mask)

    def _batch(self, batch: Batch, first: int) -> Tensor:
        """Return the metric ``[1 + masks, n]`` of one batch, intact first."""
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
            f"{self._names}: replaying is not possible ({reason}); full forward passes are used instead, which "
            "are exact but slower"
        )

    def _replayed(self, batch: Batch, first: int) -> Tensor:
        self._try_out(batch, first)
        with torch.no_grad():
            recording = self._record(batch, first)
            references = self._rows_of(recording, first)
            closed = self._closed_form(batch, recording, references)
            taped = closed is None and self._why_no_tape is None and isinstance(recording.tape, Tape)
            if taped:
                outputs = self._choice.outputs(recording, references, self.plan)
            else:
                outputs = closed or self._replays(recording, references)
            exactly = partial(self._exactly, recording, references)
            with _casts_as_recorded(batch) if taped else nullcontext():
                table = self._table(batch, recording.outputs, outputs, exactly)
                if taped:
                    assert self._choice.strategy is not None
                    program = self._choice.program(recording, references, self._choice.strategy)
                    try:
                        check_intact(program, self.plan, class_outputs(recording.outputs), recording.activation.device)
                    except CannotReplay:
                        if self._choice.strategy.is_exact:
                            raise
                        self._choice.strategy = Strategy()  # it rounds too much: this batch once more, as recorded
                        return self._replayed(batch, first)
            if not taped and closed is None:
                self._check_replay(recording.replay(unablated(recording.site, recording.activation)), recording.outputs)
        self._ways.add("replay" if closed is None else "closed form")
        return table

    def _record(self, batch: Batch, first: int) -> Recording:
        assert self._path is not None
        try:
            return record(self.forward_func, self.sites, batch, self._path)
        except CannotReplay:  # the way to the layer depends on the data
            self._trial(probe(self.forward_func, self.sites, batch), first)
            return record(self.forward_func, self.sites, batch, self._path)

    def _try_out(self, batch: Batch, first: int) -> None:
        """Make the trial, once per shape of inputs, on a few samples: those of the probe where they have that shape."""
        key = _input_shapes(batch)
        if key in self._tried:
            return
        seen = self._probe if self._probe is not None and _input_shapes(self._probe.batch) == key else None
        try:
            with unchanged(self.forward_func):  # what a model keeps from its first call is to come from a whole batch
                few = batch.take(slice(TRIAL_SAMPLES))
                self._trial(seen or probe(self.forward_func, self.sites, few), first)
        except Exception:  # a model made for one batch size, say
            self._trial(probe(self.forward_func, self.sites, batch), first)
        self._tried.add(key)

    def _trial(self, seen: Probe, first: int) -> None:
        """Check that the model repeats itself, and that a half-ablated replay is a full forward pass."""
        self._put_in_order(seen)
        batch, self._path = seen.batch, seen.path
        if self._path is None:
            raise CannotReplay("the layer runs in another thread, or out of reach")
        with torch.no_grad():
            recording = record(self.forward_func, self.sites, batch, self._path)
            self._check_repeats(seen.outputs, recording.outputs)
            references = self._rows_of(recording, first)
            mask = self.plan.mask(self.plan.half, recording.activation.device)
            full = self._full(batch, mask, first)
            if isinstance(recording.tape, Tape) and self._why_no_tape is None:
                try:
                    program = self._choice.program(recording, references, Strategy())
                    wrong = difference(program.one(mask), full)
                    reason = (
                        f"the operators behind the layer, run again, differ from a full forward pass by {wrong:.2g}"
                    )
                    if equal(program.one(mask), class_outputs(full)):
                        return
                except Exception as error:
                    reason = f"{type(error).__name__}: {error}".splitlines()[0]
                self._why_no_tape = reason
            self._check_replay(self._replay(recording, references, mask), full)

    def _rows_of(self, recording: Recording, first: int) -> list[RowReference]:
        """Return what replaces each site's activation: values, or for later sites a function where it looks at them."""
        target, rows = recording.batch.target, list[RowReference]()
        for k, (reference, activation) in enumerate(zip(self.references, recording.activations, strict=True)):
            if k > 0 and getattr(reference, "is_live", False):
                rows.append(partial(_live, reference, target, first))
            else:
                rows.append(reference(activation, target, first))
        return rows

    def _replay(self, recording: Recording, references: Sequence[RowReference], mask: Tensor) -> Any:
        """Return the outputs for a mask by a replay of modules."""
        replace = [_replacing(s, mask, r) for s, r in zip(self.sites, references, strict=True)]
        return recording.replay(replace[0](recording.activation), replace[1:])

    def _exactly(self, recording: Recording, references: Sequence[RowReference], number: int) -> Any:
        """Return the outputs for a mask by the very operations of a full forward pass."""
        return self._under(recording, references, self.plan.mask(number, recording.activation.device))

    def _check_replay(self, replayed: Any, full: Any) -> None:
        if not equal(replayed, full):
            raise CannotReplay(f"a replay differs from the full forward pass by {difference(replayed, full):.2g}")

    def _check_repeats(self, intact: Any, again: Any) -> None:
        """Refuse the model if an intact pass and one that is hooked, but ablates nothing, differ."""
        if not equal(intact, again):
            raise ValueError(
                "the model does not repeat itself: two intact forward passes on the same batch differ (by "
                f"{difference(intact, again):.2g}). Random layers, state kept between calls, or code that needs the "
                f"very tensor that {self._names} gave would do this; ablation cannot be told from it"
            )

    def _replays(self, recording: Recording, references: Sequence[RowReference]) -> Outputs:
        for number in range(len(self.plan)):
            mask = self.plan.mask(number, recording.activation.device)
            yield (number,), self._replay(recording, references, mask)

    def _closed_form(self, batch: Batch, recording: Recording, references: Sequence[RowReference]) -> Outputs | None:
        """Return the outputs by the closed form, where the tail is affine and it pays."""
        reference = references[0]
        if isinstance(self._tail, str) or len(self.sites) > 1 or not isinstance(reference, Tensor):
            return None
        if not is_finite(recording.activation, reference):
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
        ablated = class_outputs(self._replay(recording, references, everything))
        assert isinstance(ablated, Tensor)
        if not equal(self._tail.intact(recording, reference, ablated), outputs):
            self._tail = "the closed form does not give the recorded outputs"
            return None
        if "closed form" not in self._ways and not self._half_is_right(batch, recording, reference, ablated):
            self._tail = "the closed form does not give the half-ablated outputs"
            return None
        return (((k,), o) for k, o in self._tail.outputs(recording, reference, self.plan, ablated))

    def _half_is_right(self, batch: Batch, recording: Recording, reference: Tensor, ablated: Tensor) -> bool:
        """Check the closed form against a full forward pass once, at the half-ablated step."""
        assert isinstance(self._tail, AffineTail)
        half = self.plan.half
        closed = next(o for k, o in self._tail.outputs(recording, reference, self.plan, ablated) if k == half)
        mask = self.plan.mask(half, recording.activation.device)
        replace = [_replacing(self.sites[0], mask, reference)]
        return equal(closed, class_outputs(full_forward(self.forward_func, self.sites, batch, replace)))

    def _hooked(self, batch: Batch, first: int) -> Tensor:
        intact = self._unablated(batch)
        if "hook loop" not in self._ways:
            self._check_repeats(full_forward(self.forward_func, self.sites, batch), intact)

        def outputs() -> Outputs:
            for number in range(len(self.plan)):
                yield (number,), self._full(batch, self.plan.mask(number, batch.target.device), first)

        table = self._table(batch, intact, outputs())
        if "hook loop" not in self._ways:
            self._check_repeats(intact, self._unablated(batch))
        self._ways.add("hook loop")
        return table

    def _unablated(self, batch: Batch) -> Any:
        """Return the outputs of a full forward pass, hooked, with no unit ablated."""
        return full_forward(self.forward_func, self.sites, batch, [partial(unablated, site) for site in self.sites])

    def _full(self, batch: Batch, mask: Tensor, first: int) -> Any:
        """Return the outputs of a full forward pass with the units of ``mask`` ablated."""

        def ablate(site: Site, reference: Reference, activation: Tensor) -> Tensor:
            replaced = reference(activation, batch.target, first)
            return site.ablated(activation, mask[..., site.units].to(activation.device), replaced)

        replace = [partial(ablate, s, r) for s, r in zip(self.sites, self.references, strict=True)]
        return full_forward(self.forward_func, self.sites, batch, replace)

    def _table(
        self, batch: Batch, intact: Any, outputs: Outputs, exactly: Callable[[int], Any] | None = None
    ) -> Tensor:
        """Return the metric ``[1 + masks, n]``, intact first; ``exactly`` computes anew the masks with near ties."""
        check_labels(self.metric, class_outputs(intact), batch.target)
        first = self._value(intact, batch)
        n = len(first)
        table = first.new_empty(1 + len(self.plan), n)
        table[0] = first
        close = torch.zeros(len(self.plan), dtype=torch.bool, device=first.device)
        watch_ties = self.metric is accuracy and exactly is not None
        for numbers, found in outputs:
            for k, number in enumerate(numbers):
                if number == self.plan.largest:
                    self._largest_output = tree_map(partial(_rows, k, n, len(numbers)), class_outputs(found))
            places = torch.tensor(numbers, device=first.device)
            logits = class_outputs(found)
            if is_named(self.metric) and isinstance(logits, Tensor):
                whole = batch._replace(target=batch.target.repeat(len(numbers)))
                table[1 + places] = self._value(found, whole).reshape(len(numbers), n)
                if watch_ties:
                    close[places] = _near_ties(logits, whole.target).reshape(len(numbers), n).any(1)
            else:
                for k, number in enumerate(numbers):
                    own = tree_map(partial(_rows, k, n, len(numbers)), class_outputs(found))
                    table[1 + number] = self._value(own, batch)
            self.tick(n * len(numbers) / len(self.plan))
        if exactly is not None and watch_ties and "hook loop" not in self._ways:
            for number in close.nonzero().flatten().tolist():
                table[1 + number] = self._value(exactly(number), batch)
        return table

    def _value(self, outputs: Any, batch: Batch) -> Tensor:
        outputs, target = class_outputs(outputs), batch.target
        with torch.no_grad():
            if not is_named(self.metric):  # copies: a metric may write into what it gets
                outputs = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, outputs)
                target = target.clone()
            value = self.metric(outputs, target)
        if not isinstance(value, Tensor) or value.shape != batch.target.shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"metric must return one value per sample, [{len(batch.target)}]; got {got}")
        return value.detach() if value.is_floating_point() else value.detach().float()

    def _largest_is_right(self, batch: Batch, start: int) -> bool:
        """Check the largest step of the last batch once more, against a full forward pass.

        A few samples tell, unless the network mixes samples: then it is the whole batch.
        """
        n, mask = len(batch.target), self.plan.mask(self.plan.largest, batch.target.device)
        few = slice(TRIAL_SAMPLES)

        def first(value: Any) -> Any:
            return value[few] if isinstance(value, Tensor) and value.ndim and len(value) == n else value

        found = self._largest_output
        try:
            if equal(self._full(batch.take(few), mask, start), tree_map(first, found)):
                return True
        except Exception:  # a model made for one batch size, say
            pass
        return equal(self._full(batch, mask, start), found)


def probe_few(forward_func: ForwardFunc, sites: Sequence[Site], batch: Batch) -> Probe:
    """Run a few samples of ``batch`` through the model, or all where it does not take few; leave no trace."""
    with unchanged(forward_func):
        try:
            return probe(forward_func, sites, batch.take(slice(TRIAL_SAMPLES)))
        except Exception:  # a model made for one batch size, or the user's mistake, which shows again
            return probe(forward_func, sites, batch)


def _casts_as_recorded(batch: Batch) -> torch.autocast:
    """Switch autocast off: the casts that it made are operators of the tape."""
    return torch.autocast(batch.target.device.type, enabled=False)


def _replacing(site: Site, mask: Tensor, reference: RowReference) -> Replace:
    def replace(activation: Tensor) -> Tensor:
        values = reference(activation) if callable(reference) else reference
        return site.ablated(activation, mask[..., site.units].to(activation.device), values)

    return replace


def _live(reference: Reference, target: Tensor, first: int, activation: Tensor) -> Tensor:
    return reference(activation, target, first)


def _rows(k: int, n: int, masks: int, value: Any) -> Any:
    """Return the rows of mask k among those of several masks."""
    return value[k * n : (k + 1) * n] if isinstance(value, Tensor) and masks > 1 else value


def _near_ties(outputs: Tensor, target: Tensor) -> Tensor:
    """Tell for each row whether the label and the best other output are so close that rounding may turn them."""
    own = outputs.gather(1, target[:, None]).squeeze(1)
    others = outputs.scatter(1, target[:, None], -torch.inf).amax(1)
    return (own - others).abs() <= TOLERANCE * outputs.abs().amax(1)


def _input_shapes(batch: Batch) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(x.shape[1:]) for x in tree_leaves(batch.inputs) if isinstance(x, Tensor))
