"""Run the prefix, what comes before the layer, from its tape on later batches like the recorded one.

This pays if the operators run faster than the model: in channels-last memory, with batch norm folded, without Python.
The time is measured. The rewritten tape is tried first, and the plain one if that fails or does not beat recording.
The first strategy that is right proves the tape: its batch is recorded too, and the whole batch must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves

from captum_ablate.ablation.effects import storage_of
from captum_ablate.ablation.recording import Recording, Taken
from captum_ablate.ablation.schedule import Schedule, Values, in_channels_last
from captum_ablate.ablation.state import PLAIN, state_of
from captum_ablate.ablation.strategy import Strategy
from captum_ablate.ablation.tape import Tape
from captum_ablate.ablation.weights import Weights
from captum_ablate.inputs.batch import Batch

FASTER = 0.95
"""Largest share of a recording's time that the prefix tape may take."""

SLOW = 1e-3
"""Seconds an operator, in a recording, above which the plain tape saves nothing: watching costs a tenth of that."""

FEWEST = 4
"""Fewest samples in a batch: with fewer, checking one of them costs what the tape saves."""


class Prefix:
    """The prefix tape. ``run`` follows ``strategy``; ``accept`` and ``reject`` report how the run went."""

    def __init__(self, recording: Recording, batch: Batch, seconds: float, *, rewritable: bool) -> None:
        assert isinstance(recording.before, Tape)
        assert isinstance(recording.tape, Tape)
        self._before, self._inputs, self._sites = recording.before, recording.inputs, recording.sites
        results = set(self._slots)
        fixed = {s: v for s, v in recording.tape.values.items() if s not in results}
        self._suffix = replace(recording.tape, values=fixed)
        self._layout = [_layout(v) for v in (recording.activation, *(recording.tape.values[s] for s in self._slots))]
        self._key, self._model, self._state = _key(batch), recording.forward_func, state_of(recording.forward_func)
        self._limit = FASTER * seconds
        convolutional = any(op.name == "convolution" for op in recording.before.ops)
        self._has_images = any(len(spec.shape) == 4 for spec in recording.before.specs)
        self._folds = False
        self._untried = []
        if rewritable and convolutional:
            self._untried.append(Strategy(channels_last=True, folded=True))
        if self._limit <= SLOW * len(recording.before.ops):
            self._untried.append(Strategy())
        self._seconds: dict[Strategy, float] = {}
        self._schedules: dict[Strategy, Schedule] = {}
        self.batches = 0
        self.checks_all = False
        """True if the whole batch is checked, because a sample alone rounds differently than in its batch."""

    @property
    def _slots(self) -> list[int]:
        """The slots of the suffix that depend on the inputs but not on the ablation."""
        return [leaf.slot for leaf in self._before.outputs[0][1:]]

    @property
    def is_proven(self) -> bool:
        """Tell whether the outputs of a whole batch were found right."""
        return bool(self._seconds)

    def sample(self, n: int) -> slice:
        """Return which of the n samples of the next batch to check."""
        return slice(self.batches % n, self.batches % n + 1)

    @property
    def strategy(self) -> Strategy | None:
        """The fastest strategy if it beats recording, else an untried one, else None."""
        fast = [s for s, seconds in self._seconds.items() if seconds <= self._limit]
        if fast:
            return min(fast, key=lambda s: self._seconds[s])
        return self._untried[0] if self._untried else None

    @property
    def description(self) -> str:
        """Name of the prefix's execution, if that was not bit-identical to the model."""
        if all(s.is_exact for s in self._seconds):
            return ""
        words = ["channels last" if self._has_images else "", "folded batch norm" if self._folds else ""]
        return " ".join(["prefix", ", ".join(filter(None, words))]) if any(words) else ""

    def accept(self, seconds: float) -> None:
        """Note that the strategy was right, and its time."""
        strategy = self.strategy
        assert strategy is not None
        self.batches += 1
        if strategy in self._untried:
            self._untried.remove(strategy)
            self._seconds[strategy] = seconds

    def reject(self) -> None:
        """Note that the outputs differed from the model's. After the plain strategy there is none left."""
        strategy = self.strategy
        if strategy is not None and not strategy.is_exact:
            self._untried = [s for s in self._untried if s != strategy]
            self._seconds.pop(strategy, None)
        else:
            self._untried, self._seconds = [], {}

    def fits(self, batch: Batch) -> bool:
        """Tell whether a batch is like the recorded one, and the model unchanged."""
        if self.strategy is None or self._key is None:
            return False
        return _key(batch) == self._key and state_of(self._model) == self._state

    def run(self, batch: Batch, weights: Weights) -> Taken:
        """Run the prefix on a batch. Its intact outputs are not known yet."""
        strategy = self.strategy
        assert strategy is not None
        schedule = self._schedules.get(strategy)
        if schedule is None:
            values = Values(self._before, weights, channels_last=strategy.channels_last)
            ops = weights.folded(self._before) if strategy.folded else self._before.ops
            self._folds |= len(ops) < len(self._before.ops)
            schedule = self._schedules[strategy] = Schedule.of(ops, values)
        given = [
            leaf for leaf in tree_leaves((batch.inputs, batch.additional_forward_args)) if isinstance(leaf, Tensor)
        ]
        if strategy.channels_last:
            given = [in_channels_last(x) if x.is_floating_point() else x for x in given]
        slots = schedule.filled(dict(zip(self._inputs, given, strict=True)))
        for step in schedule.steps:
            step.run(slots)
            for slot in step.dies:
                slots[slot] = None
        found = [slots[leaf.slot] for leaf in self._before.outputs[0]]
        activation, *suffix_values = [_laid_out(*pair) for pair in zip(found, self._layout, strict=True)]
        tape = replace(self._suffix, values=self._suffix.values | dict(zip(self._slots, suffix_values, strict=True)))
        return Taken(self._sites, batch, [activation], None, tape)


def _layout(value: Tensor) -> tuple[Sequence[int], Sequence[int]]:
    return tuple(value.shape), tuple(value.stride())


def _laid_out(value: Tensor, layout: tuple[Sequence[int], Sequence[int]]) -> Tensor:
    """Return an image in the memory layout of the recording."""
    if value.ndim != 4 or _layout(value) == layout or 0 in layout[1]:
        return value
    return torch.empty_strided(*layout, dtype=value.dtype, device=value.device).copy_(value)


def _key(batch: Batch) -> tuple[Any, ...] | None:
    """Return what two batches must share for one prefix tape to serve both, or None if no two can."""
    leaves, spec = tree_flatten((batch.inputs, batch.additional_forward_args))
    if not all(type(leaf) is Tensor or isinstance(leaf, PLAIN) for leaf in leaves):
        return None
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    memory, same = [storage_of(t) for t in tensors], [id(t) for t in tensors]
    alike = tuple((memory.index(storage_of(t)), same.index(id(t))) for t in tensors)
    marks = tuple((_layout(x), x.dtype, x.device) if isinstance(x, Tensor) else (type(x), x) for x in leaves)
    return spec, alike, marks, len(batch.target)
