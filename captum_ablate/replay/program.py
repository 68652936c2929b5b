"""A tape made ready to run for many masks: fewer operators, another memory format, several masks in one pass.

All that a ``Strategy`` allows leaves the mathematics alone. Operators that treat units separately run once, on the
activations and on the reference, and the mask is applied behind them: that is the same to the bit. Stacked masks,
channels-last memory, folded batch norm and updates of the first affine operator round differently, by about 1e-7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_unflatten

from captum_ablate.replay.affine_step import AffineStep, affine_step
from captum_ablate.replay.effects import signature_of
from captum_ablate.replay.plan import Plan
from captum_ablate.replay.separable import Separated, separable
from captum_ablate.replay.site import Site
from captum_ablate.replay.tape import Op, Ref, Tape
from captum_ablate.replay.weights import Weights

RowReference = Callable[[Tensor], Tensor] | Tensor
"""What replaces a site's activation ``[n, ...]``: values that broadcast against it, or a function of it."""


@dataclass(frozen=True)
class Strategy:
    """How a tape runs: ``stack`` masks in one pass, in which memory format, and with what rewritten."""

    stack: int = 1
    channels_last: bool = False
    folded: bool = False
    incremental: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether the very operations of a full forward pass run, so that every bit agrees."""
        return self == Strategy()

    def __str__(self) -> str:
        words = [
            f"{self.stack} masks stacked" if self.stack > 1 else "",
            "channels last" if self.channels_last else "",
            "folded batch norm" if self.folded else "",
            "first affine operator updated, steps stacked" if self.incremental else "",
        ]
        return ", ".join(filter(None, words))


class Program:
    """One batch's tape under a strategy. ``outputs(plan, numbers)`` gives the outputs for masks of a plan."""

    def __init__(
        self,
        tape: Tape,
        sites: Sequence[Site],
        activation: Tensor,
        references: Sequence[RowReference],
        strategy: Strategy,
        weights: Weights,
    ) -> None:
        self.tape, self.sites, self.strategy = tape, sites, strategy
        self._references, self._n = references, tape.rows
        self._weights = weights
        ops = weights.folded(tape) if strategy.folded else tape.ops
        self._separated = self._separate(ops, activation)
        self._ops = [op for k, op in enumerate(ops) if k not in self._separated.done]
        self.steps: list[AffineStep] = []
        if strategy.incremental:
            self._take_affine_steps()
        self._schedules: dict[int, _Schedule] = {}
        self._before = [_units_of(sites[:k], activation.device) if len(sites) > 1 else None for k in range(len(sites))]
        self._saved: dict[int, tuple[bytes, dict[int, Tensor]]] = {}
        self._last_key: dict[int, bytes] = {}

    def walk(self, plan: Plan, numbers: Sequence[int]) -> list[int]:
        """Return the masks in the order in which they come: along chains, from the fullest end, where incremental."""
        if not self.steps:
            return list(numbers)
        ordered = []
        for chain, wanted in _by_chain(plan, numbers):
            row = plan.rows[chain]
            whole = plan.chains[chain].counts[-1] == plan.units
            ordered += [n for n in (reversed(row) if whole else row) if n in wanted]
        return list(dict.fromkeys(ordered))

    def outputs(self, plan: Plan, numbers: Sequence[int]) -> Iterator[tuple[Sequence[int], Any]]:
        """Yield some of these masks' numbers, and the outputs for them: n rows for each, one after the other."""
        for chunk, (leaves, spec) in self._chunks(plan, numbers):
            yield chunk, tree_unflatten(leaves, spec)

    def one(self, mask: Tensor) -> Any:
        """Return the outputs for one mask ``[units]``, by no incremental step."""
        leaves, spec = self._run(mask[None], {})
        return tree_unflatten(leaves, spec)

    def _chunks(self, plan: Plan, numbers: Sequence[int]) -> Iterator[tuple[Sequence[int], Any]]:
        size, device = self.strategy.stack, self._separated.device
        if not self.steps:
            for start in range(0, len(numbers), size):
                chunk = numbers[start : start + size]
                yield chunk, self._run(torch.stack([plan.mask(k, device) for k in chunk]), {})
            return
        for row, wanted in _by_chain(plan, numbers):
            yield from self._along(plan, row, wanted)

    def _along(self, plan: Plan, chain: int, wanted: set[int]) -> Iterator[tuple[Sequence[int], Any]]:
        """Walk a chain of nested masks, from its fullest end, and run the rest for as many as are stacked."""
        device = self._separated.device
        chunk: list[int] = []
        kept: list[list[Tensor]] = [[] for _ in self.steps]
        order = plan.chains[chain].order
        whole = plan.chains[chain].counts[-1] == plan.units
        states = [step.start(ablated=whole) for step in self.steps]
        places = list(zip(plan.chains[chain].counts, plan.rows[chain], strict=True))
        last = plan.units if whole else 0
        left = len(wanted)
        for count, number in reversed(places) if whole else places:
            group = order[count:last] if whole else order[last:count]
            last = count
            for state, values in zip(states, kept, strict=True):
                state.move(group, back=whole)
                if number in wanted:
                    values.append(state.value)
            if number in wanted:
                chunk.append(number)
                left -= 1
            if chunk and (len(chunk) == self.strategy.stack or not left):
                masks = torch.stack([plan.mask(k, device) for k in chunk])
                given = {s.slot: s.joined(values) for s, values in zip(self.steps, kept, strict=True)}
                yield chunk, self._run(masks, given)
                chunk, kept = [], [[] for _ in self.steps]
            if not left:
                return

    def by_row(self, masks: Tensor) -> Any:
        """Return the outputs for ``masks [n, units]``, one for each sample."""
        leaves, spec = self._run(masks, {}, by_row=True)
        return tree_unflatten(leaves, spec)

    def _run(self, masks: Tensor, given: dict[int, Tensor], by_row: bool = False) -> tuple[list[Any], Any]:
        """Run the operators for ``masks [k, units]``; ``given`` slots, of k n rows, are known already."""
        k = 1 if by_row else len(masks)
        schedule = self._schedule(k)
        start, slots = 0, None
        if len(self.sites) > 1 and not by_row:
            start, slots = self._resumed(masks, schedule)
        if slots is None:
            slots = self._first_slots(schedule, masks, given, by_row)
        self._go(schedule, slots, masks, given, by_row, start)
        leaves, spec = self.tape.outputs
        return [slots[x.slot] if isinstance(x, Ref) else x for x in leaves], spec

    def _first_slots(self, schedule: _Schedule, masks: Tensor, given: dict[int, Tensor], by_row: bool) -> list[Any]:
        slots = list(schedule.values)
        for slot, value in given.items():
            slots[slot] = value
        for slot in schedule.mixed if given else schedule.mixed_all:
            slots[slot] = self._separated.mixed(
                slot, masks[:, self.sites[0].units], channels_last=self.strategy.channels_last, by_row=by_row
            )
        return slots

    def _go(
        self,
        schedule: _Schedule,
        slots: list[Any],
        masks: Tensor,
        given: dict[int, Tensor],
        by_row: bool,
        start: int,
        stop: int | None = None,
    ) -> None:
        for step in schedule.steps[start:stop]:
            if step.site is not None:
                slots[step.outs[0]] = self._ablate(step, slots[step.place], masks, by_row)
            elif step.outs[0] in given:
                continue
            else:
                step.run(slots)
            for slot in step.dies:
                slots[slot] = None

    def _resumed(self, masks: Tensor, schedule: _Schedule) -> tuple[int, list[Any] | None]:
        """Return where to start, and the slots there: at the first site that these masks do not share with the last.

        Up to a site before which all masks agree, the operators run for one of them, and only once while it stays so.
        """
        for site in range(len(self.sites) - 1, 0, -1):
            before = masks[:, self._before[site]]
            if not bool((before == before[:1]).all()):
                continue
            key = before[0].cpu().numpy().tobytes()
            seen, self._last_key[site] = self._last_key.get(site) == key, key
            if self._saved.get(site, (b"",))[0] != key:
                if not seen and len(masks) == 1 and bool(before.any()):
                    continue
                self._saved[site] = key, self._run_up_to(site, masks[:1])
            place = next(i for i, step in enumerate(schedule.steps) if step.site == site)
            slots = list(schedule.values)
            for slot, value in self._saved[site][1].items():
                tiled = len(masks) > 1 and _holds_rows(value.shape, self._n)
                slots[slot] = value.repeat(len(masks), *(1,) * (value.ndim - 1)) if tiled else value.clone()
            return place, slots
        return 0, None

    def _run_up_to(self, site: int, mask: Tensor) -> dict[int, Tensor]:
        """Return the slots that are alive where a site is ablated, for one mask."""
        schedule = self._schedule(1)
        place = next(i for i, step in enumerate(schedule.steps) if step.site == site)
        slots = self._first_slots(schedule, mask, {}, False)
        self._go(schedule, slots, mask, {}, False, 0, place)
        own = enumerate(zip(slots, schedule.values, strict=True))
        return {slot: value for slot, (value, given) in own if value is not None and given is None}

    def _ablate(self, step: _Step, activation: Tensor, masks: Tensor, by_row: bool) -> Tensor:
        """Return a later site's activation, of k n rows, with the units of each mask ablated."""
        assert step.site is not None
        site, reference = self.sites[step.site], self._references[step.site]
        own = masks[:, site.units]
        if by_row:
            return site.ablated(activation, own, reference(activation) if callable(reference) else reference)
        parts = []
        for mask, part in zip(own, activation.split(self._n), strict=True):
            replaced = reference(part) if callable(reference) else reference
            parts.append(site.ablated(part, mask, replaced))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _separate(self, ops: list[Op], activation: Tensor) -> Separated:
        reference = self._references[0]
        replaced = reference(activation) if callable(reference) else reference
        if self.strategy.channels_last:
            activation = _channels_last(activation)
        return separable(ops, self.tape, self.sites[0], activation, replaced)

    def _take_affine_steps(self) -> None:
        for op in self._ops:
            step = affine_step(op, self._separated, self.strategy.channels_last, self._constant, self._weights.by_rows)
            if step is not None:
                self.steps.append(step)

    def _constant(self, argument: Any) -> Tensor | None:
        """Return the value of an argument that neither inputs nor ablation reach, else None."""
        if isinstance(argument, Ref):
            return self.value(argument.slot, 1) if argument.slot in self.tape.constants else None
        return self.inline(argument)

    def inline(self, value: Any) -> Any:
        """Return a tensor among the arguments (a folded weight) in the memory format of the strategy."""
        is_weight = isinstance(value, Tensor) and value.ndim == 4 and self.strategy.channels_last
        return self._weights.channels_last(value) if is_weight else value

    def _schedule(self, k: int) -> _Schedule:
        if k not in self._schedules:
            self._schedules[k] = _Schedule.of(self, k)
        return self._schedules[k]

    def value(self, slot: int, k: int) -> Tensor:
        """Return the value of a slot that no ablation reaches, for k n rows."""
        value = self.tape.values[slot]
        if self.strategy.channels_last and value.ndim == 4 and value.is_floating_point():
            value = self._weights.channels_last(value) if slot in self.tape.constants else _channels_last(value)
        if k > 1 and slot not in self.tape.constants and _holds_rows(value.shape, self._n):
            value = value.repeat(k, *(1,) * (value.ndim - 1))
            value = _channels_last(value) if self.strategy.channels_last and value.ndim == 4 else value
        return value


@dataclass
class _Step:
    """An operator ready to run: its arguments with the places of slots, and the slots that nobody reads after it."""

    func: Any
    args: list[Any]
    kwargs: dict[str, Any]
    places: list[tuple[int, int]]
    nested: bool
    outs: tuple[Any, ...]
    site: int | None
    place: int = -1
    dies: list[int] = field(default_factory=list)

    def run(self, slots: list[Any]) -> None:
        if self.nested:
            args = [_filled(a, slots) for a in self.args]
            result = self.func(*args, **{k: _filled(a, slots) for k, a in self.kwargs.items()})
        else:
            args = list(self.args)
            for place, slot in self.places:
                args[place] = slots[slot]
            result = self.func(*args, **self.kwargs)
        if isinstance(result, Tensor):
            slots[self.outs[0]] = result
        else:
            for slot, value in zip(self.outs, result, strict=True):
                if slot is not None:
                    slots[slot] = value


@dataclass
class _Schedule:
    """The steps for one number of stacked masks."""

    steps: list[_Step]
    values: list[Any]
    mixed: list[int]
    mixed_all: list[int]

    @classmethod
    def of(cls, program: Program, k: int) -> _Schedule:
        tape, ops = program.tape, program._ops
        known = {step.slot for step in program.steps}
        needed = [{s for op in ops if op.outs[0] not in skipped for s in op.reads} for skipped in (known, set())]
        outputs = {x.slot for x in tape.outputs[0] if isinstance(x, Ref)}
        separated = program._separated.slots
        values: list[Any] = [None] * len(tape.specs)
        for slot in (needed[1] | outputs) & tape.values.keys():
            values[slot] = program.value(slot, k)
        owned = _Memory(ops, outputs, set(separated))
        steps = [_step(op, number, owned, program, k) for number, op in enumerate(ops)]
        mixed = [[s for s in separated if s in use or s in outputs] for use in needed]
        return cls(steps, values, mixed[0], mixed[1])


class _Memory:
    """Which slots share memory, and when it is read for the last time."""

    def __init__(self, ops: Sequence[Op], outputs: set[int], separated: set[int]) -> None:
        self._root: dict[int, int] = {slot: slot for slot in separated}
        self._last: dict[int, int] = {}
        self._last_own: dict[int, int] = {}
        for number, op in enumerate(ops):
            for slot in op.reads:
                self._last_own[slot] = number
                if slot in self._root:
                    self._last[self._root[slot]] = number
            shares = op.func is not None and (signature_of(op.func)[0] or op.name in ("_unsafe_view", "reshape"))
            for out in op.outs:
                if out is not None:
                    source = op.reads[0] if shares and op.reads else out
                    self._root[out] = self._root.get(source, -1) if shares else out
        self._kept = {self._root.get(slot, -1) for slot in outputs} | {-1}
        self._outputs = outputs

    def is_free(self, slot: int, number: int) -> bool:
        """Tell whether the memory of a slot is made here, and operator ``number`` is the last to read it."""
        root = self._root.get(slot, -1)
        return root not in self._kept and self._last.get(root) == number

    def root(self, slot: int) -> int:
        return self._root.get(slot, -1)

    def dying(self, op: Op, number: int) -> list[int]:
        """Return the slots that operator ``number`` reads last."""
        own = [s for s in dict.fromkeys(op.reads) if self._last_own[s] == number and s in self._root]
        unread = [s for s in op.outs if s is not None and s not in self._last_own]
        return [s for s in own + unread if s not in self._outputs]


def _step(op: Op, number: int, memory: _Memory, program: Program, k: int) -> _Step:
    func, args = op.func, [program.inline(a) for a in op.args]
    if op.site is not None:
        return _Step(None, [], {}, [], False, op.outs, op.site, args[0].slot, memory.dying(op, number))
    tape, n = program.tape, program.tape.rows
    if program.strategy.channels_last and op.name in ("view", "_unsafe_view"):
        func = torch.ops.aten.reshape.default
    if k > 1:
        args = _scaled(op, args, tape, n, k)
    twin = _in_place(op)
    if twin is not None and func is op.func:
        first = args[0]
        out = op.outs[0]
        assert out is not None
        candidates = [0, 1] if op.name in ("add", "mul") and _same(args, tape) and len(args) == 2 else [0]
        for place in candidates:
            target = args[place]
            others = [a for i, a in enumerate(args) if i != place and isinstance(a, Ref)]
            if (
                isinstance(target, Ref)
                and tape.specs[target.slot] == tape.specs[out]
                and memory.is_free(target.slot, number)
                and all(memory.root(o.slot) != memory.root(target.slot) for o in others)
                and not op.kwargs
            ):
                if place == 1:
                    args = [target, first]
                func = twin
                break
    nested = any(not isinstance(a, Ref) and any(isinstance(x, Ref) for x in tree_leaves(a)) for a in args) or any(
        isinstance(x, Ref) for x in tree_leaves(op.kwargs)
    )
    places = [(i, a.slot) for i, a in enumerate(args) if isinstance(a, Ref)]
    return _Step(func, args, op.kwargs, places, nested, op.outs, None, dies=memory.dying(op, number))


_SIZES = {"view": 1, "_unsafe_view": 1, "reshape": 1, "expand": 1, "new_zeros": 1, "new_ones": 1, "new_full": 1}
"""Operators with sizes among their arguments, and where."""


def _scaled(op: Op, args: list[Any], tape: Tape, n: int, k: int) -> list[Any]:
    """Return the arguments for k n rows: sizes that count rows grow."""
    place = _SIZES.get(op.name)
    if place is None or len(args) <= place or not args[place]:
        return args
    sizes = list(args[place])
    if n == 1 and op.name in ("view", "_unsafe_view", "reshape"):
        sizes[0] *= k if sizes[0] > 0 else 1  # one sample: whatever comes first grows
    elif _holds_rows(tape.specs[op.reads[0]].shape, n) and _holds_rows((sizes[0],), n):
        sizes[0] *= k
    return [*args[:place], sizes, *args[place + 1 :]]


def _holds_rows(shape: Sequence[int], n: int) -> bool:
    return len(shape) > 0 and (shape[0] == n or (n > 1 and shape[0] > 0 and shape[0] % n == 0))


_IN_PLACE = frozenset(
    "relu hardtanh add sub mul silu hardswish hardsigmoid sigmoid tanh leaky_relu elu gelu clamp clamp_min".split()  # noqa: SIM905
)


def _in_place(op: Op) -> Any:
    if op.name not in _IN_PLACE or len(op.outs) != 1:
        return None
    twin = getattr(torch.ops.aten, op.name + "_", None)
    return getattr(twin, op.func._overloadname, None)


def _same(args: list[Any], tape: Tape) -> bool:
    return all(isinstance(a, Ref) for a in args[:2]) and tape.specs[args[0].slot] == tape.specs[args[1].slot]


def _filled(value: Any, slots: list[Any]) -> Any:
    if isinstance(value, Ref):
        return slots[value.slot]
    if isinstance(value, (list, tuple)):
        return type(value)(_filled(x, slots) for x in value)
    return value


def _units_of(sites: Sequence[Site], device: torch.device) -> Tensor:
    """Return the numbers of the units of some sites."""
    if len(sites) == 0:
        return torch.empty(0, dtype=torch.int64, device=device)
    return torch.cat([torch.arange(s.units.start, s.units.stop, device=device) for s in sites])


def _channels_last(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


def _by_chain(plan: Plan, numbers: Sequence[int]) -> Iterator[tuple[int, set[int]]]:
    """Yield each chain that has first places of the wanted masks, with those masks."""
    wanted: dict[int, set[int]] = {}
    for number in numbers:
        wanted.setdefault(plan.where[number][0], set()).add(number)
    yield from wanted.items()
