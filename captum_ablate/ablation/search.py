"""Choose the fastest strategy for a tape. Candidates are timed on masks that are needed anyway."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from captum_ablate.ablation.agreement import TOLERANCE, equal
from captum_ablate.ablation.clock import timed
from captum_ablate.ablation.metrics import class_outputs
from captum_ablate.ablation.narrowed import narrowed
from captum_ablate.ablation.plan import Plan
from captum_ablate.ablation.program import Program
from captum_ablate.ablation.ready import Ready
from captum_ablate.ablation.strategy import Strategy
from captum_ablate.ablation.tape import Tape

FASTER = 0.95
"""Largest share of the time that a candidate may take to be chosen."""

SLOWER = 1.05
"""Share of the time above which a candidate is dropped after its first run."""

WORTH = 2
"""Number of masks whose time the incremental update must save on the first batch to be tried."""

CLOSE = TOLERANCE / 5
"""Largest difference of a candidate in the search: other masks may round worse and must stay within ``TOLERANCE``."""

STACK_BYTES = 2**28
"""Largest memory of one tensor in a stacked run: 256 MiB."""

LARGEST_STACK = 64

SMALL = 2**21
"""Numbers that one run of the suffix touches, below which nothing is timed: masks are stacked up to this size instead.
So small networks always run with the same strategy."""


_DECIDE = frozenset(
    """
    round floor ceil trunc frac fix sign heaviside floor_divide remainder fmod gt ge lt le eq ne argmax argmin topk sort
    argsort kthvalue median bucketize searchsorted quantize_per_tensor fake_quantize_per_tensor_affine_cachemask
    """.split()  # noqa: SIM905
)
"""Discontinuous operators: a rounding of 1e-7 before them may become a large difference after them."""


class Search:
    """Run the masks of a batch, each once, while one strategy after the other is tried."""

    def __init__(self, plan: Plan, ready: Ready) -> None:
        self.plan, self.ready = plan, ready
        self.tape, self.device = ready.tape, ready.device

    def outputs(self, numbers: list[int]) -> Any:  # a generator that returns (strategy, numbers left)
        half, plain = self.plan.half, self.ready.plain
        mask = self.plan.mask(half, self.device)
        seconds, truth = self._timed(lambda: plain.one(mask))
        yield (half,), truth
        numbers.remove(half)
        best = Strategy()
        if len(numbers) > 2 and is_precise(self.tape):
            if size_of(self.tape) <= SMALL:
                best, done = yield from self._small(numbers)
            else:
                again, outputs = self._timed(lambda: plain.one(self.plan.mask(numbers[-1], self.device)))
                yield (numbers.pop(),), outputs
                best, seconds = self._rewritten(min(seconds, again), mask, truth)
                best, done = yield from self._updated(best, seconds, truth, numbers)
                numbers = [number for number in numbers if number not in done]
                best, done = yield from self._stacked(best, seconds, numbers)
            numbers = [number for number in numbers if number not in done]
        return best, numbers

    def _timed(self, run: Callable[[], Any]) -> tuple[float, Any]:
        return timed(run, self.device)

    def _small(self, numbers: Sequence[int]) -> Any:  # a generator that returns (strategy, numbers done)
        k = int(min(LARGEST_STACK, self._most_masks, len(numbers), max(1, SMALL // size_of(self.tape))))
        if k < 2:
            return Strategy(), set()
        strategy = Strategy(k)
        program = self.ready.program(strategy)
        try:
            found = list(program.outputs(self.plan, numbers[:k]))
            if not agree(self.ready, self.plan, *found[0]):
                return Strategy(), set()
        except (RuntimeError, ValueError, IndexError):
            return Strategy(), set()
        yield from found
        return strategy, set(numbers[:k])

    def _rewritten(self, seconds: float, mask: Tensor, truth: Any) -> tuple[Strategy, float]:
        """Try narrowing, channels-last memory and folding; return the best strategy and its seconds a mask."""
        best = Strategy()
        if narrowed(self.tape) is not self.tape:
            candidate = Strategy(narrowed=True)
            took = self._trial(candidate, mask, truth, seconds)
            if took is not None and took <= FASTER * seconds:
                best, seconds = candidate, took
        if any(op.name == "convolution" and len(self.tape.specs[op.reads[0]].shape) == 4 for op in self.tape.ops):
            folds = self.ready.weights.folds(narrowed(self.tape) if best.narrowed else self.tape)
            for candidate in [replace(best, channels_last=True, folded=folds), replace(best, folded=True)][: 1 + folds]:
                took = self._trial(candidate, mask, truth, seconds)
                if took is not None and took <= FASTER * seconds:
                    return candidate, took
        return best, seconds

    def _trial(self, candidate: Strategy, mask: Tensor, truth: Any, limit: float) -> float | None:
        """Return the seconds that a strategy takes, or None if it fails or returns other outputs."""
        try:
            program = self.ready.program(candidate)
            program.schedule(1)  # prepare weights outside the timed run
            took, outputs = self._timed(lambda: program.one(mask))
            if took > SLOWER * limit or not equal(outputs, truth, CLOSE):
                return None
            again, outputs = self._timed(lambda: program.one(torch.zeros_like(mask)))
            if not equal(outputs, class_outputs(self.ready.taken.outputs), CLOSE):
                return None
        except (RuntimeError, ValueError, IndexError):  # for example no kernel for this memory format
            return None
        return min(took, again)

    def _updated(
        self, best: Strategy, seconds: float, truth: Any, numbers: Sequence[int]
    ) -> Any:  # a generator that returns (strategy, numbers done)
        """Try incremental updates of the first affine operator; yield the outputs of those ``numbers`` that it ran."""
        updated = replace(best, incremental=True)
        found = self._walked(updated, truth) if self._updates_pay(updated, seconds) else None
        if found is None:
            return best, set()
        for number, outputs in found.items():
            if number in numbers:
                yield (number,), outputs
        return updated, set(found)

    def _updates_pay(self, strategy: Strategy, seconds: float) -> bool:
        """Tell whether updating the first affine operator for one more group is cheaper than computing it.

        Over the plan it must save ``WORTH`` masks of ``seconds`` each, the cost of trying it.
        """
        chain = self.plan.chains[self.plan.where[self.plan.half][0]]
        counts = (0, *chain.counts)
        group = chain.order[: max(1, (counts[-1] - counts[0]) // max(1, len(chain.counts)))]
        try:
            program = self.ready.program(strategy)
            whole, update = 0.0, 0.0
            k = min(4, len(self.plan), self._most_masks)  # stacked, as in a real run
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

    def _walked(self, strategy: Strategy, truth: Any) -> dict[int, Any] | None:
        """Return the outputs for a chain's half-way mask and the last mask of its walk, or None if they differ.

        They must agree with the plain tape: rounding adds up along the walk, and a deep network amplifies it.
        """
        half, chain = self.plan.half, self.plan.where[self.plan.half][0]
        program = self.ready.program(strategy)
        ends = [n for n in program.walk(self.plan, self.plan.rows[chain]) if self.plan.where[n][0] == chain]
        try:
            found = {numbers[0]: o for numbers, o in program.outputs(self.plan, [half, ends[-1]])}
        except (RuntimeError, ValueError, IndexError):
            return None
        plain = {n: truth if n == half else self.ready.plain.one(self.plan.mask(n, self.device)) for n in found}
        return found if all(equal(found[n], plain[n], CLOSE) for n in found) else None

    def _stacked(
        self, best: Strategy, seconds: float, numbers: Sequence[int]
    ) -> Any:  # a generator that returns (strategy, numbers done)
        """Try stacks of masks, each larger than the last while that pays."""
        done: set[int] = set()
        k = 1 if best.incremental else 4
        if self.device.type == "cpu" and not best.incremental and 2 * _read(self.tape) < _made(self.tape):
            return best, done  # computing outweighs reading weights, so masks have nothing to share
        while k <= min(LARGEST_STACK, self._most_masks) and len(numbers) - len(done) >= 2 * k:
            candidate = replace(best, stack=k)
            program = self.ready.program(candidate)
            chunk = [n for n in program.walk(self.plan, numbers) if n not in done][:k]
            try:
                took, found = self._timed(partial(_listed, program, self.plan, chunk))
                agrees = k != 4 or agree(self.ready, self.plan, *found[0])
            except (RuntimeError, ValueError, IndexError):
                agrees = False
            if not agrees:
                break
            pays = k == 1 or took / k <= FASTER * seconds
            if not pays and best.is_exact:
                break  # run the stacked masks again, so that every bit agrees
            yield from found
            done.update(chunk)
            if not pays:
                break
            best, seconds = candidate, took / k
            k *= 4
        return best, done

    @property
    def _most_masks(self) -> int:
        largest = max(s.shape.numel() * s.dtype.itemsize for s in self.tape.specs)
        return max(1, STACK_BYTES // max(1, largest))


def agree(ready: Ready, plan: Plan, numbers: Sequence[int], outputs: Any) -> bool:
    """Tell whether the first and the last stacked mask equal their own runs: samples must not mix across masks."""
    n = ready.tape.rows
    for k in {0, len(numbers) - 1}:
        own = tree_map(lambda x, k=k: x[k * n : (k + 1) * n] if isinstance(x, Tensor) else x, outputs)
        if not equal(own, ready.plain.one(plan.mask(numbers[k], ready.device)), CLOSE):
            return False
    return True


def is_precise(tape: Tape) -> bool:
    """Tell whether a tape rounds far below the tolerance: not in half precision, nor with discontinuous operators."""
    wide = (torch.float32, torch.float64)
    smooth = all(op.name not in _DECIDE for op in tape.ops)
    return smooth and all(not s.dtype.is_floating_point or s.dtype in wide for s in tape.specs)


def size_of(tape: Tape) -> int:
    """Return how many numbers one run of a tape touches."""
    return _made(tape) + _read(tape)


def _made(tape: Tape) -> int:
    """Return how many numbers the operators make."""
    return sum(tape.specs[slot].shape.numel() for op in tape.ops for slot in op.outs if slot is not None)


def _read(tape: Tape) -> int:
    """Return how many numbers of weights the operators read."""
    return sum(tape.values[slot].numel() for slot in tape.constants)


def _listed(program: Program, plan: Plan, numbers: Sequence[int]) -> list[tuple[Sequence[int], Any]]:
    return list(program.outputs(plan, numbers))
