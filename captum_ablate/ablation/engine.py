"""Measure a metric under many masks: record each batch once, run its tape (or the closed form), and check the result.

The outer loop is over batches, the inner one over masks. One recording serves every mask, equal masks run once, and
memory holds one batch. A batch that fails a check runs again in the hook loop, with one warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate.ablation.before_layer import BeforeLayer
from captum_ablate.ablation.choice import Choice, check_intact
from captum_ablate.ablation.clock import timed
from captum_ablate.ablation.closed_form import ClosedForm
from captum_ablate.ablation.full_passes import FullPasses
from captum_ablate.ablation.hook_loop import Probe
from captum_ablate.ablation.metric_table import MetricTable, Outputs
from captum_ablate.ablation.metrics import Metric, class_outputs
from captum_ablate.ablation.plan import Plan
from captum_ablate.ablation.ready import Ready, casts_as_recorded
from captum_ablate.ablation.recording import Recording, unablated
from captum_ablate.ablation.reference import Reference
from captum_ablate.ablation.site import Site
from captum_ablate.ablation.stage import CannotReplay
from captum_ablate.ablation.strategy import Strategy
from captum_ablate.ablation.trial import TRIAL_SAMPLES, Trial, check_replay
from captum_ablate.ablation.weights import Weights
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.model import ForwardFunc
from captum_ablate.inputs.warnings import warn


@dataclass(frozen=True)
class Measured:
    """The metric's ``intact [n]`` and ``values [masks, n]``, the ``target [n]``, and the ``engine``'s execution."""

    intact: Tensor
    values: Tensor
    target: Tensor
    engine: str


@dataclass(frozen=True)
class BatchOutputs:
    """One batch: its ``intact`` outputs, and ``outputs(mask)`` with the units of ``mask`` ablated.

    ``mask`` is bool: ``[units]`` over the units of all sites, or ``[n, units]``, one row a sample.
    """

    intact: Any
    outputs: Callable[[Tensor], Any]


class Engine:
    """Measure a metric under every mask of a plan, batch by batch.

    Each of the ``sites`` has one reference. The plan's masks cover the units of all sites; ``Site.units`` says where.
    """

    def __init__(
        self,
        forward_func: ForwardFunc,
        sites: Sequence[Site],
        references: Sequence[Reference],
        metric: Metric,
        plan: Plan,
        tick: Callable[[float], object] = lambda samples: None,
    ) -> None:
        self._passes, self._plan = FullPasses(forward_func, sites, references), plan
        self._weights = Weights()
        self._trial = Trial(self._passes, plan, self._weights)
        self._metric_table = MetricTable(metric, plan, tick)
        self._choice, self._closed = Choice(plan), ClosedForm(self._passes, plan)
        self._before = BeforeLayer(self._passes, self._choice, self._weights)
        self._seen: Probe | None = None
        self.restarts = 0
        """Number of runs restarted because a prefix used by an earlier batch failed a later check."""
        self._why_hooks = None if isinstance(forward_func, nn.Module) else "forward_func is not an nn.Module"
        self._executions: set[str] = set()

    def run(self, batches: Iterable[Batch], seen: Probe | None = None) -> Measured:
        """Return the metric of every sample, intact and under every mask. ``seen`` saves one forward pass."""
        if seen is not None:
            self._seen = self._passes.put_in_order(seen)
        tables: list[Tensor] = []
        targets, first = [], 0
        last: tuple[Batch, int] | None = None
        for batch in batches:
            table = self._batch(batch, first)
            if self._before.needs_restart:
                return self._restart(batches)
            self._passes.check_finite(batch, len(tables), table)
            last = batch, first
            first += len(batch.target)
            tables.append(table.cpu())
            targets.append(batch.target.cpu().clone())  # a loader may reuse its memory
        assert last is not None
        if self._why_hooks is None and not self._largest_is_right(*last):
            self._fall_back("the last step differs from a full forward pass")
            return self._restart(batches)
        table = torch.cat(tables, dim=1)
        return Measured(table[0], table[1:], torch.cat(targets), self.description)

    def _restart(self, batches: Iterable[Batch]) -> Measured:
        """Measure from the start, without the prefix that failed a check."""
        self._executions = set()
        self._before.forget()
        self.restarts += 1
        return self.run(batches)

    @property
    def description(self) -> str:
        """The execution that was used: "replay (...)", "closed form" or "hook loop (reason)"."""
        names = []
        for name in sorted(self._executions) or ["hook loop"]:
            details = [self._why_hooks or ""] if name == "hook loop" else [self._before.description]
            if name == "replay" and self._choice.strategy is not None:
                details.insert(0, str(self._choice.strategy))
            detail = "; ".join(filter(None, details))
            names.append(f"{name} ({detail})" if detail else name)
        return " and ".join(names)

    def outputs_of(self, batch: Batch, first: int = 0) -> BatchOutputs:
        """Return the outputs of one batch under any masks, also under one mask a sample."""
        if self._why_hooks is None:
            try:
                self._trial.of(batch, first, self._seen)
                with torch.no_grad():
                    ready = self._recorded(batch, first)
                return BatchOutputs(ready.taken.outputs, partial(self._under, ready))
            except CannotReplay as error:
                self._fall_back(str(error))
        passes = self._passes
        return BatchOutputs(passes.unablated(batch), lambda mask: passes.ablated(batch, mask, first))

    def _under(self, ready: Ready, mask: Tensor) -> Any:
        """Return the outputs under ``mask``, ``[units]`` or ``[n, units]``, by the operators of a full pass."""
        with torch.no_grad():
            if not self._is_taped(ready):
                return ready.replay(mask)
            with casts_as_recorded(ready.taken.batch):
                return ready.plain.by_row(mask) if mask.ndim == 2 else ready.plain.one(mask)

    def _is_taped(self, ready: Ready) -> bool:
        return ready.has_tape and self._trial.why_no_tape is None

    def _batch(self, batch: Batch, first: int) -> Tensor:
        """Return the metric ``[1 + masks, n]`` of one batch, intact first."""
        if self._why_hooks is not None:
            return self._hooked(batch, first)
        try:
            with torch.no_grad():
                return self._replayed(batch, first)
        except CannotReplay as error:
            reason = str(error)
        except Exception as error:  # the replay's fault or the user's: the hook loop raises the user's again
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        result = self._hooked(batch, first)
        self._fall_back(reason)
        self._before.request_restart()
        return result

    def _fall_back(self, reason: str) -> None:
        self._why_hooks = reason
        warn(
            f"{self._passes.names}: replaying is not possible ({reason}); full forward passes are used instead, which "
            "are exact but slower"
        )

    def _replayed(self, batch: Batch, first: int) -> Tensor:
        self._trial.of(batch, first, self._seen)
        known = self._before.from_prefix(batch, first, self._recorded)
        if known is not None:
            if self._metric_table.has_near_tie(known.taken.outputs, batch):
                known.taken.outputs = known.exact.taken.outputs
            return self._measured(known, first)
        seconds, ready = timed(partial(self._recorded, batch, first), batch.target.device)
        table = self._measured(ready, first)
        if self._is_taped(ready):
            self._before.begin(ready, seconds)
        return table

    def _recorded(self, batch: Batch, first: int) -> Ready:
        recording = self._trial.record(batch, first, with_prefix=self._before.is_wanted)
        return Ready(recording, self._passes.references, first, self._weights)

    def _measured(self, ready: Ready, first: int) -> Tensor:
        """Return the metric under every mask, and check the batch."""
        batch, taped = ready.taken.batch, self._is_taped(ready)
        with casts_as_recorded(batch) if taped and not isinstance(ready.taken, Recording) else nullcontext():
            closed = self._closed.outputs(ready, first)
        outputs = closed or (self._choice.outputs(ready) if taped else self._replays(ready))
        with casts_as_recorded(batch) if taped and closed is None else nullcontext():
            table = self._metric_table.measure(batch, ready.taken.outputs, outputs, partial(self._exactly, ready))
            if isinstance(ready.taken, Recording) and closed is None:
                if not taped:
                    taken = ready.taken
                    check_replay(taken.replay(unablated(taken.site, taken.activation)), taken.outputs)
                elif not self._intact_is_right(ready):
                    return self._measured(ready, first)
        self._executions.add("replay" if closed is None else "closed form")
        return table

    def _intact_is_right(self, ready: Ready) -> bool:
        """Check the intact outputs of the chosen strategy; choose the plain tape if they round too much."""
        strategy = self._choice.strategy
        assert strategy is not None
        try:
            check_intact(ready.program(strategy), self._plan, class_outputs(ready.taken.outputs), ready.device)
        except CannotReplay:
            if strategy.is_exact:
                raise
            self._choice.strategy = Strategy()
            return False
        return True

    def _exactly(self, ready: Ready, number: int) -> Any:
        """Return the outputs for a mask by the operators of a full forward pass."""
        return self._under(ready.exact, self._plan.mask(number, ready.device))

    def _replays(self, ready: Ready) -> Outputs:
        for number in range(len(self._plan)):
            yield (number,), ready.replay(self._plan.mask(number, ready.device))

    def _hooked(self, batch: Batch, first: int) -> Tensor:
        passes, is_first = self._passes, "hook loop" not in self._executions
        intact = passes.unablated(batch)
        if is_first:
            passes.check_repeats(passes.intact(batch), intact)

        def outputs() -> Outputs:
            for number in range(len(self._plan)):
                yield (number,), passes.ablated(batch, self._plan.mask(number, batch.target.device), first)

        table = self._metric_table.measure(batch, intact, outputs())
        if is_first:
            passes.check_repeats(intact, passes.unablated(batch))
        self._executions.add("hook loop")
        return table

    def _largest_is_right(self, batch: Batch, first: int) -> bool:
        """Check the largest step of the last batch against a full forward pass."""
        few = slice(TRIAL_SAMPLES)
        return self._passes.is_right(batch, self._plan, self._plan.largest, first, self._metric_table.largest, few)
