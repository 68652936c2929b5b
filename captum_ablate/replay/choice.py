"""Which way a tape runs fastest here: measured on the first batch, on masks whose results are used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from captum_ablate.metrics import class_outputs
from captum_ablate.replay.agreement import TOLERANCE, equal
from captum_ablate.replay.plan import Plan
from captum_ablate.replay.program import Program, RowReference
from captum_ablate.replay.recording import Recording
from captum_ablate.replay.stage import CannotReplay
from captum_ablate.replay.strategy import Strategy
from captum_ablate.replay.tape import Tape
from captum_ablate.replay.weights import Weights

FASTER = 0.95
"""A change is taken if it takes at most this share of the time."""

WORTH = 2
"""Masks whose time an update of the first affine operator must save on the first batch to be tried."""

CLOSE = TOLERANCE / 5
"""What a change may differ by where it is tried: other masks round worse, and must still be within ``TOLERANCE``."""

STACK_BYTES = 2**28
"""Memory of the largest tensor of a stacked run: 256 MiB."""

LARGEST_STACK = 64

SMALL = 2**21
"""Numbers that a run behind the layer touches: with fewer, nothing is measured, masks are stacked until it is as much.
So small networks run the same way every time."""

Outputs = Iterator[tuple[Sequence[int], Any]]
"""The numbers of some masks, and the outputs for them: n rows for the first, n for the second, and so on."""


class Choice:
    """The strategy of an evaluation: chosen while the first batch runs, the same for all others."""

    def __init__(self) -> None:
        self.strategy: Strategy | None = None
        self.weights = Weights()

    def outputs(self, recording: Recording, references: Sequence[RowReference], plan: Plan) -> Outputs:
        """Yield the outputs for every mask of the plan."""
        numbers = range(len(plan))
        if self.strategy is None:
            yield from _Search(self, recording, references, plan).outputs(list(numbers))
            return
        done: set[int] = set()
        try:
            for some, outputs in self.program(recording, references, self.strategy).outputs(plan, numbers):
                yield some, outputs
                done.update(some)
        except (RuntimeError, ValueError, IndexError):  # a last batch whose size does not stack
            if self.strategy.is_exact:
                raise
            plain = self.program(recording, references, Strategy())
            yield from plain.outputs(plan, [number for number in numbers if number not in done])

    def program(self, recording: Recording, references: Sequence[RowReference], strategy: Strategy) -> Program:
        """Return the program of a recorded batch."""
        assert isinstance(recording.tape, Tape)
        return Program(recording.tape, recording.sites, recording.activation, references, strategy, self.weights)


class _Search:
    """Runs the masks of a batch, each once, while strategies are tried one after the other."""

    def __init__(self, choice: Choice, recording: Recording, references: Sequence[RowReference], plan: Plan) -> None:
        self.choice, self.plan = choice, plan
        self._make: Callable[[Strategy], Program] = lambda s: choice.program(recording, references, s)
        self.device = recording.activation.device
        self.recording = recording
        assert isinstance(recording.tape, Tape)
        self.tape = recording.tape

    def outputs(self, numbers: list[int]) -> Outputs:
        half, plain = self.plan.half, self._make(Strategy())
        mask = self.plan.mask(half, self.device)
        seconds, truth = self._timed(lambda: plain.one(mask))
        yield (half,), truth
        numbers.remove(half)
        best = Strategy()
        if len(numbers) > 2 and self._is_precise:
            if self._size <= SMALL:
                done = yield from self._small(plain, numbers)
                best = self.choice.strategy or best
            else:
                best, seconds = self._rewritten(best, seconds, mask, truth)
                best, seconds, done = yield from self._stacked(best, seconds, plain, numbers)
            numbers = [number for number in numbers if number not in done]
        self.choice.strategy = best
        yield from (plain if best.is_exact else self._make(best)).outputs(self.plan, numbers)

    @property
    def _is_precise(self) -> bool:
        """Whether rounding is far below what outputs are held to: not so for half precision."""
        wide = (torch.float32, torch.float64)
        return all(not s.dtype.is_floating_point or s.dtype in wide for s in self.tape.specs)

    @property
    def _made(self) -> int:
        """How many numbers the operators of the tape make."""
        return sum(self.tape.specs[slot].shape.numel() for op in self.tape.ops for slot in op.outs if slot is not None)

    @property
    def _weights_read(self) -> int:
        return sum(self.tape.values[slot].numel() for slot in self.tape.constants)

    @property
    def _size(self) -> int:
        """How many numbers the operators of the tape make, and how many weights they read."""
        return self._made + self._weights_read

    def _small(self, plain: Program, numbers: Sequence[int]) -> Any:  # a generator that returns the numbers done
        k = int(min(LARGEST_STACK, self._most_masks, len(numbers), max(1, SMALL // self._size)))
        if k < 2:
            return set()
        strategy = Strategy(k)
        program = self._make(strategy)
        try:
            found = list(program.outputs(self.plan, numbers[:k]))
            if not self._agrees(found, plain):
                return set()
        except (RuntimeError, ValueError, IndexError):
            return set()
        yield from found
        self.choice.strategy = strategy
        return set(numbers[:k])

    def _rewritten(self, best: Strategy, seconds: float, mask: Tensor, truth: Any) -> tuple[Strategy, float]:
        """Try channels-last memory and folding, then updates of the first affine operator."""
        if any(op.name == "convolution" and len(self.tape.specs[op.reads[0]].shape) == 4 for op in self.tape.ops):
            for candidate in (Strategy(channels_last=True, folded=True), Strategy(folded=True)):
                took = self._trial(candidate, mask, truth, seconds)
                if took is not None and took <= FASTER * seconds:
                    best, seconds = candidate, took
                    break
        updated = Strategy(channels_last=best.channels_last, folded=best.folded, incremental=True)
        if self._updates_pay(updated, seconds) and self._updates_agree(updated):
            best = updated
        return best, seconds

    def _trial(self, candidate: Strategy, mask: Tensor, truth: Any, limit: float) -> float | None:
        """Return the seconds that a strategy takes, None where it fails or gives other outputs."""
        try:
            program = self._make(candidate)
            took, outputs = self._timed(lambda: program.one(mask))
            if not equal(outputs, truth, CLOSE):
                return None
            if took < 1.5 * limit:  # once more: the first run of its kind finds nothing prepared
                again, outputs = self._timed(lambda: program.one(torch.zeros_like(mask)))
                if not equal(outputs, class_outputs(self.recording.outputs), CLOSE):
                    return None
                took = min(took, again)
        except (RuntimeError, ValueError, IndexError):  # no such kernel for this memory format, say
            return None
        return took

    def _updates_pay(self, strategy: Strategy, seconds: float) -> bool:
        """Tell whether updating the first affine operator for one more group is cheaper than computing it.

        It must save the time of ``WORTH`` masks over the plan, ``seconds`` each: finding out costs as much.
        """
        chain = self.plan.chains[self.plan.where[self.plan.half][0]]
        counts = (0, *chain.counts)
        group = chain.order[: max(1, (counts[-1] - counts[0]) // max(1, len(chain.counts)))]
        try:
            program = self._make(strategy)
            whole, update = 0.0, 0.0
            k = min(4, len(self.plan), self._most_masks)  # stacked, as it would be
            for step in program.steps:
                state = step.start(ablated=False)
                own = state.mask.repeat(k, 1)
                own[:, ::2] = True
                whole += self._timed(partial(step.compute, own))[0] / k
                update += self._timed(partial(state.move, group, back=False))[0]
        except (RuntimeError, ValueError, IndexError):
            return False
        saved = (whole - update) * len(self.plan)
        return bool(program.steps) and update <= 0.8 * whole and saved >= WORTH * seconds

    def _updates_agree(self, strategy: Strategy) -> bool:
        """Tell whether the half-way mask of a chain and the last that is reached are as computed plainly.

        Rounding adds up along the walk, and a deep network makes more of it.
        """
        chain = self.plan.where[self.plan.half][0]
        program, plain = self._make(strategy), self._make(Strategy())
        ends = [n for n in program.walk(self.plan, self.plan.rows[chain]) if self.plan.where[n][0] == chain]
        try:
            found = {numbers[0]: o for numbers, o in program.outputs(self.plan, [self.plan.half, ends[-1]])}
        except (RuntimeError, ValueError, IndexError):
            return False
        return all(equal(o, plain.one(self.plan.mask(n, self.device)), CLOSE) for n, o in found.items())

    def _stacked(
        self, best: Strategy, seconds: float, plain: Program, numbers: Sequence[int]
    ) -> Any:  # a generator that returns (strategy, seconds per mask, numbers done)
        done: set[int] = set()
        k = 1 if best.incremental else 4
        if not best.incremental and 2 * self._weights_read < self._made:
            return best, seconds, done  # what is computed outweighs what is read: nothing to share between masks
        while k <= min(LARGEST_STACK, self._most_masks) and len(numbers) - len(done) >= 2 * k:
            candidate = Strategy(k, best.channels_last, best.folded, best.incremental)
            program = self._make(candidate)
            chunk = [n for n in program.walk(self.plan, numbers) if n not in done][:k]
            try:
                took, found = self._timed(partial(_listed, program, self.plan, chunk))
                agrees = k not in (1, 4) or self._agrees(found, plain)
            except (RuntimeError, ValueError, IndexError):
                agrees = False
            if not agrees:
                if best.incremental and k == 1:
                    best = Strategy(channels_last=best.channels_last, folded=best.folded)
                break
            pays = k == 1 or took / k <= FASTER * seconds
            if not pays and best.is_exact:
                break  # what was stacked is computed again, so that every bit agrees
            yield from found
            done.update(chunk)
            if not pays:
                break
            best, seconds = candidate, took / k
            k *= 4
        return best, seconds, done

    def _agrees(self, found: list[tuple[Sequence[int], Any]], plain: Program) -> bool:
        """Tell whether the first and the last of stacked masks are as alone: samples must not mix across masks."""
        numbers, outputs = found[0]
        n = self.tape.rows
        for k in {0, len(numbers) - 1}:
            own = tree_map(lambda x, k=k: x[k * n : (k + 1) * n] if isinstance(x, Tensor) else x, outputs)
            if not equal(own, plain.one(self.plan.mask(numbers[k], self.device)), CLOSE):
                return False
        return True

    @property
    def _most_masks(self) -> int:
        largest = max(s.shape.numel() * s.dtype.itemsize for s in self.tape.specs)
        return max(1, STACK_BYTES // max(1, largest))

    def _timed(self, run: Callable[[], Any]) -> tuple[float, Any]:
        """Return the seconds of processor time (of the clock, on a GPU): other jobs do not disturb it."""
        clock = time.process_time if self.device.type == "cpu" else time.perf_counter
        self._wait()
        start = clock()
        result = run()
        self._wait()
        return clock() - start, result

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _listed(program: Program, plan: Plan, numbers: Sequence[int]) -> list[tuple[Sequence[int], Any]]:
    return list(program.outputs(plan, numbers))


def check_intact(program: Program, plan: Plan, recorded: Any, device: torch.device) -> None:
    """Raise if a program with no unit ablated does not give the outputs that were recorded."""
    outputs = program.one(torch.zeros(plan.units, dtype=torch.bool, device=device))
    if not equal(outputs, recorded):
        raise CannotReplay("the operators behind the layer do not give the recorded outputs when they run again")
