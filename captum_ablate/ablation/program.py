"""Run one batch's tape under a strategy: for one mask, for many masks of a plan, or with one mask a sample."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_unflatten

from captum_ablate.ablation.affine_step import AffineStep, affine_step
from captum_ablate.ablation.narrowed import narrowed
from captum_ablate.ablation.plan import Plan
from captum_ablate.ablation.schedule import Schedule, Step, Values, holds_rows, in_channels_last
from captum_ablate.ablation.separable import separable
from captum_ablate.ablation.site import Site
from captum_ablate.ablation.strategy import Strategy
from captum_ablate.ablation.tape import Ref, Tape
from captum_ablate.ablation.weights import Weights

RowReference = Callable[[Tensor], Tensor] | Tensor
"""Replacement of a site's activation ``[n, ...]``: values that broadcast against it, or a function of it."""

T = TypeVar("T")


class Program:
    """One batch's tape under a strategy."""

    def __init__(
        self,
        tape: Tape,
        sites: Sequence[Site],
        activation: Tensor,
        references: Sequence[RowReference],
        strategy: Strategy,
        weights: Weights,
    ) -> None:
        tape = narrowed(tape) if strategy.narrowed else tape
        self.tape, self.sites, self.strategy = tape, sites, strategy
        self._references, self._n, self._device = references, tape.rows, activation.device
        self._values = Values(tape, weights, channels_last=strategy.channels_last)
        ops = weights.folded(tape) if strategy.folded else tape.ops
        replaced = references[0](activation) if callable(references[0]) else references[0]
        started = in_channels_last(activation) if strategy.channels_last else activation
        self._separated = separable(ops, tape, sites[0], started, replaced)
        self._ops = [op for k, op in enumerate(ops) if k not in self._separated.done]
        self.steps: list[AffineStep] = []
        if strategy.incremental and len(sites) == 1:  # chains run over the units of all sites
            for op in self._ops:
                step = affine_step(op, self._separated, strategy.channels_last, self._values.constant, weights.by_rows)
                if step is not None:
                    self.steps.append(step)
        self._schedules: dict[int, Schedule] = {}
        self._mixed = [self._mixed_without(known) for known in ({step.slot for step in self.steps}, set[int]())]
        self._resume = _Resume(sites) if len(sites) > 1 else None

    def walk(self, plan: Plan, numbers: Sequence[int]) -> list[int]:
        """Return the masks in running order: along chains, from the fullest end, if the strategy is incremental."""
        if not self.steps:
            return list(numbers)
        ordered = []
        for place, wanted in _by_chain(plan, numbers):
            row = plan.rows[place]
            whole = plan.ends_fullest(place)
            ordered += [n for n in (reversed(row) if whole else row) if n in wanted]
        return list(dict.fromkeys(ordered))

    def outputs(self, plan: Plan, numbers: Sequence[int]) -> Iterator[tuple[Sequence[int], Any]]:
        """Yield the numbers of some of these masks and their outputs, n rows a mask."""
        if not self.steps:
            for chunk in batched(numbers, self.strategy.stack):
                yield chunk, self._run(self._masks(plan, chunk), {}, keys=self._keys(plan, chunk))
            return
        walked = chain.from_iterable(self._along(plan, row, wanted) for row, wanted in _by_chain(plan, numbers))
        for some in batched(walked, self.strategy.stack):
            chunk = [number for number, _ in some]
            given = {step.slot: step.joined([values[k] for _, values in some]) for k, step in enumerate(self.steps)}
            yield chunk, self._run(self._masks(plan, chunk), given, keys=self._keys(plan, chunk))

    def one(self, mask: Tensor) -> Any:
        """Return the outputs for one mask ``[units]``, without incremental steps."""
        return self._run(mask[None], {})

    def by_row(self, masks: Tensor) -> Any:
        """Return the outputs for ``masks [n, units]``, one a sample."""
        return self._run(masks, {}, by_row=True)

    def _masks(self, plan: Plan, numbers: Sequence[int]) -> Tensor:
        return torch.stack([plan.mask(number, self._device) for number in numbers])

    def _keys(self, plan: Plan, numbers: Sequence[int]) -> Tensor | None:
        """Return the masks on the CPU, where comparing them does not wait for a GPU, or None if nothing is compared."""
        if self._resume is None:
            return None
        return torch.stack([plan.mask(number, torch.device("cpu")) for number in numbers])

    def _along(self, plan: Plan, number: int, wanted: set[int]) -> Iterator[tuple[int, list[Tensor]]]:
        """Walk a chain of nested masks from its fullest end; yield the wanted masks with the steps' results."""
        order, counts = plan.order(number, self._device), plan.chains[number].counts
        whole = plan.ends_fullest(number)
        states = [step.start(ablated=whole) for step in self.steps]
        if whole and len(order) < plan.units:  # units that are in no order, such as dead ones, stay
            for state in states:
                state.move(plan.never_ablated(number, self._device), back=True)
        places = list(zip(counts, plan.rows[number], strict=True))
        last, left = len(order) if whole else 0, len(wanted)
        for count, mask in reversed(places) if whole else places:
            group = order[count:last] if whole else order[last:count]
            last = count
            for state in states:
                state.move(group, back=whole)
            if mask in wanted:
                yield mask, [state.value for state in states]
                left -= 1
            if not left:
                return

    def _run(self, masks: Tensor, given: dict[int, Tensor], by_row: bool = False, keys: Tensor | None = None) -> Any:
        """Return the outputs for ``masks [k, units]``. Slots in ``given`` (k n rows) are known.

        ``keys`` are the masks on the CPU.
        """
        schedule = self.schedule(1 if by_row else len(masks))
        start, slots = 0, None
        if self._resume is not None and not by_row:
            start, slots = self._resume.at(self, masks, masks if keys is None else keys)
        if slots is None:
            slots = schedule.filled(given | self.mixed(masks, bool(given), by_row))
        self.go(schedule.steps[start:], slots, masks, given, by_row)
        leaves, spec = self.tape.outputs
        return tree_unflatten([slots[x.slot] if isinstance(x, Ref) else x for x in leaves], spec)

    def go(
        self, steps: Sequence[Step], slots: list[Any], masks: Tensor, given: Collection[int] = (), by_row: bool = False
    ) -> None:
        """Run ``steps`` on ``slots``, except those whose result is ``given``."""
        for step in steps:
            if step.site is not None:
                slots[step.outs[0]] = self._ablate(step.site, slots[step.place], masks, by_row)
            elif step.outs[0] in given:
                continue
            else:
                step.run(slots)
            for slot in step.dies:
                slots[slot] = None

    def mixed(self, masks: Tensor, updated: bool = False, by_row: bool = False) -> dict[int, Tensor]:
        """Return what the first operators read: activations, with the reference where a mask is set."""
        own, last = masks[:, self.sites[0].units], self.strategy.channels_last
        slots = self._mixed[0 if updated else 1]
        return {slot: self._separated.mixed(slot, own, channels_last=last, by_row=by_row) for slot in slots}

    def schedule(self, k: int) -> Schedule:
        """Return the schedule for k stacked masks."""
        if k not in self._schedules:
            self._schedules[k] = Schedule.of(self._ops, self._values, k, self._separated.slots)
        return self._schedules[k]

    def _mixed_without(self, known: set[int]) -> list[int]:
        """Return the slots of the separated part that are still read if the results in ``known`` are given."""
        read = {slot for op in self._ops if op.outs[0] not in known for slot in op.reads}
        read |= {x.slot for x in self.tape.outputs[0] if isinstance(x, Ref)}
        return [slot for slot in self._separated.slots if slot in read]

    def _ablate(self, number: int, activation: Tensor, masks: Tensor, by_row: bool) -> Tensor:
        """Return a later site's activation, of k n rows, with the units of each mask ablated."""
        site, reference = self.sites[number], self._references[number]
        own = masks[:, site.units]
        if by_row:
            return site.ablated(activation, own, reference(activation) if callable(reference) else reference)
        parts = []
        for mask, part in zip(own, activation.split(self._n), strict=True):
            parts.append(site.ablated(part, mask, reference(part) if callable(reference) else reference))
        return parts[0] if len(parts) == 1 else torch.cat(parts)


class _Resume:
    """Several sites: masks that agree up to a site share what runs before it, which then runs once.

    It does not keep its program: the two would hold weights and activations until Python collects garbage.
    """

    def __init__(self, sites: Sequence[Site]) -> None:
        self._before = [_units_of(sites[:k]) for k in range(len(sites))]
        self._saved: dict[int, tuple[bytes, dict[int, Tensor]]] = {}
        self._last_key: dict[int, bytes] = {}

    def at(self, program: Program, masks: Tensor, keys: Tensor) -> tuple[int, list[Any] | None]:
        """Return the step to start at and the slots there, or (0, None) to start at the first step.

        ``keys`` are the masks on the device where they are compared.
        """
        k = len(masks)
        schedule = program.schedule(k)
        for site in range(len(program.sites) - 1, 0, -1):
            before = keys[:, self._before[site]]
            if not bool((before == before[:1]).all()):
                continue
            key = before[0].cpu().numpy().tobytes()
            seen, self._last_key[site] = self._last_key.get(site) == key, key
            if self._saved.get(site, (b"",))[0] != key:
                if not seen and k == 1 and bool(before.any()):
                    continue
                self._saved[site] = key, _run_up_to(program, site, masks[:1])
            slots = list(schedule.values)
            for slot, value in self._saved[site][1].items():
                tiled = k > 1 and holds_rows(value.shape, program.tape.rows)
                slots[slot] = value.repeat(k, *(1,) * (value.ndim - 1)) if tiled else value.clone()
            return schedule.place(site), slots
        return 0, None


def _run_up_to(program: Program, site: int, mask: Tensor) -> dict[int, Tensor]:
    """Return the slots that are alive when a site is ablated, for one mask."""
    schedule = program.schedule(1)
    slots = schedule.filled(program.mixed(mask))
    program.go(schedule.steps[: schedule.place(site)], slots, mask)
    own = enumerate(zip(slots, schedule.values, strict=True))
    return {slot: value for slot, (value, given) in own if value is not None and given is None}


def _units_of(sites: Sequence[Site]) -> list[int]:
    """Return the numbers of the units of some sites."""
    return [unit for site in sites for unit in range(site.units.start, site.units.stop)]


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of ``size`` items; the last one may be shorter."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def _by_chain(plan: Plan, numbers: Sequence[int]) -> Iterator[tuple[int, set[int]]]:
    """Yield each chain on which wanted masks come first, with those masks."""
    wanted: dict[int, set[int]] = {}
    for number in numbers:
        wanted.setdefault(plan.where[number][0], set()).add(number)
    yield from wanted.items()
