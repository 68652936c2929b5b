"""The strategy of an evaluation: searched for on the first batch, checked again on batches of another size."""

from __future__ import annotations

from typing import Any

import torch

from captum_ablate.ablation.agreement import equal
from captum_ablate.ablation.metric_table import Outputs
from captum_ablate.ablation.plan import Plan
from captum_ablate.ablation.program import Program
from captum_ablate.ablation.ready import Ready
from captum_ablate.ablation.recording import Recording
from captum_ablate.ablation.search import SMALL, Search, agree, is_precise, size_of
from captum_ablate.ablation.stage import CannotReplay
from captum_ablate.ablation.strategy import Strategy
from captum_ablate.ablation.tape import Tape


class Choice:
    """The strategy of an evaluation, chosen on the first batch and kept for all others."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.strategy: Strategy | None = None
        self._agrees: dict[Any, bool] = {}

    def outputs(self, ready: Ready) -> Outputs:
        """Yield the outputs for every mask of the plan.

        A batch of another size, or one that took another path, has another tape: the strategy is checked again.
        """
        numbers, kind = list(range(len(self.plan))), _kind(ready.tape)
        if self.strategy is None:
            self.strategy, numbers = yield from Search(self.plan, ready).outputs(numbers)
            self._agrees[kind] = True
        done: set[int] = set()
        try:
            rest = [] if not self._agrees.get(kind, True) else ready.program(self.strategy).outputs(self.plan, numbers)
            for some, outputs in rest:
                if not self.strategy.is_exact and kind not in self._agrees:
                    self._agrees[kind] = agree(ready, self.plan, some, outputs)
                    if not self._agrees[kind]:
                        break
                yield some, outputs
                done.update(some)
        except (RuntimeError, ValueError, IndexError):  # a last batch whose size does not stack
            if self.strategy.is_exact:
                raise
        yield from ready.plain.outputs(self.plan, [number for number in numbers if number not in done])

    def is_rewritable(self, ready: Ready) -> bool:
        """Tell whether a batch is large enough to time its strategies, and rounds far below the tolerance."""
        before = ready.taken.before if isinstance(ready.taken, Recording) else None
        tapes = [ready.tape, before] if isinstance(before, Tape) else [ready.tape]
        return all(map(is_precise, tapes)) and sum(map(size_of, tapes)) > SMALL


def _kind(tape: Tape) -> Any:
    """Return what two tapes must share for a check of one to hold for the other: rows, operators and sizes."""
    sizes = [tape.specs[slot].shape for op in tape.ops for slot in op.outs if slot is not None]
    return tape.rows, tuple(op.name for op in tape.ops), tuple(sizes)


def check_intact(program: Program, plan: Plan, recorded: Any, device: torch.device) -> None:
    """Raise if a program with no unit ablated does not return the recorded outputs."""
    outputs = program.one(torch.zeros(plan.units, dtype=torch.bool, device=device))
    if not equal(outputs, recorded):
        raise CannotReplay("the operators after the layer do not return the recorded outputs when they run again")
