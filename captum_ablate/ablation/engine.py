"""Measure a metric under many masks: capture what follows the layer once, run it for each mask, and check the results.

The outer loop is over batches, the inner one over masks. Each batch runs once by the model itself, which gives the
activations and the outputs that the graph must return with no unit ablated. Whatever has no graph, fails a check, or
is too small to repay a capture, runs by full passes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate.ablation.captured import CPU, Captured, Captures, OpenBatch
from captum_ablate.ablation.checks import CLOSE, TOLERANCE, Differs, equal
from captum_ablate.ablation.choose import ZERO, modules_around, repays
from captum_ablate.ablation.hooked import FullPasses, Look, Probe
from captum_ablate.ablation.metric_table import MetricTable, Outputs
from captum_ablate.ablation.metrics import Metric, class_outputs
from captum_ablate.ablation.opened import Opened
from captum_ablate.ablation.plan import Plan
from captum_ablate.ablation.reference import Reference
from captum_ablate.ablation.site import Site
from captum_ablate.ablation.suffix import Way
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.model import ForwardFunc, has_hooks
from captum_ablate.inputs.unchanged import has_drawn, random_states
from captum_ablate.inputs.warnings import warn

SLOW = "full passes are faster"


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


class _Judge:
    """What the outputs of some masks must be, by full passes: of the intact mask, and of the half-ablated one."""

    def __init__(self, passes: FullPasses, plan: Plan, batch: Batch, first: int, look: Look) -> None:
        self._passes, self._plan, self._batch, self._first, self._look = passes, plan, batch, first, look

    def __call__(self, number: int, outputs: Any, within: float) -> bool:
        if number == ZERO:
            return equal(outputs, class_outputs(self._look.outputs), within)
        mask = self._plan.mask(number, self._batch.target.device)
        return self._passes.is_right(self._batch, mask, self._first, outputs, self._look.outputs)


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
        self._metric_table = MetricTable(metric, plan, tick)
        self._captures = Captures(self._passes, plan)
        self._has_looked = False
        self._intact: Any = None
        self._seen: Probe | None = None
        self.restarts = 0
        """Number of runs restarted because the graph used by an earlier batch failed a later check."""
        self._why_hooks = _why_hooks(forward_func)
        self._executions: dict[str, None] = {}

    def run(self, batches: Iterable[Batch], seen: Probe | None = None) -> Measured:
        """Return the metric of every sample, intact and under every mask. ``seen`` saves one forward pass."""
        if seen is not None:
            self._seen = self._passes.put_in_order(seen)
        tables: list[Tensor] = []
        targets, first = [], 0
        last: tuple[Batch, int, Any] | None = None
        for batch in batches:
            try:
                table = self._batch(batch, first, _batches_left(batches, len(tables)))
            except Differs as error:
                self._passes.check_repeats(batch, self._intact)
                self._fall_back(str(error))
                if tables:
                    return self._restart(batches)
                table = self._batch(batch, first, 1.0)
            self._passes.check_finite(batch, len(tables), table)
            last = batch, first, self._intact
            first += len(batch.target)
            tables.append(table.cpu())
            targets.append(batch.target.cpu().clone())  # a loader may reuse its memory
        assert last is not None
        if self._why_hooks is None and not self._largest_is_right(*last):
            self._passes.check_repeats(last[0], self._intact)
            self._fall_back("the last step differs from a full forward pass")
            return self._restart(batches)
        table = torch.cat(tables, dim=1)
        return Measured(table[0], table[1:], torch.cat(targets), self.description)

    def _restart(self, batches: Iterable[Batch]) -> Measured:
        """Measure from the start, by full passes."""
        self._executions = {}
        self.restarts += 1
        return self.run(batches)

    @property
    def description(self) -> str:
        """The execution that was used: "graph (...)", "closed form" or "hook loop (reason)"."""
        return " and ".join(sorted(self._executions)) or f"hook loop ({self._why_hooks})"

    def outputs_of(self, batch: Batch, first: int = 0) -> BatchOutputs:
        """Return the outputs of one batch under any masks, also under one mask a sample."""
        passes, look = self._passes, self._looked(batch)
        captured = self._captured(batch, look) if self._why_hooks is None else self._why_hooks
        if isinstance(captured, Captured):
            try:
                opened = captured.opened(batch, look, self._replace(batch, first))
                self._check(captured, opened, self._judge(batch, first, look))
                return BatchOutputs(look.outputs, partial(_under, opened(Way())))
            except Differs as error:
                self._fall_back(str(error))
        return BatchOutputs(look.outputs, lambda mask: passes.ablated(batch, mask, first))

    def _check(self, captured: Captured, opened: OpenBatch, judge: _Judge) -> None:
        """Check the intact outputs of a batch, and once the half-ablated ones."""
        numbers = {ZERO: torch.zeros(1, self._plan.units, dtype=torch.bool)}
        if not captured.is_proven:
            numbers[self._plan.half] = self._plan.mask(self._plan.half, CPU)[None]
        for number, mask in numbers.items():
            if not judge(number, _under(opened(Way()), mask[0]), TOLERANCE):
                raise Differs("the graph differs from a full forward pass")
        captured.is_proven = True

    def _looked(self, batch: Batch) -> Look:
        """Return a plain pass; the first one must repeat what was seen before."""
        if self._seen is None:
            self._seen = self._passes.probe(batch)
        states = None if self._has_looked else random_states()
        look = self._passes.look(batch)
        if states is not None:  # where random numbers are drawn, a pass that began like this one would repeat them
            self._passes.check_repeats(batch, look.outputs, None if has_drawn(states) else self._seen)
            self._has_looked = True
        self._intact = look.outputs
        return look

    def _batch(self, batch: Batch, first: int, batches: float) -> Tensor:
        """Return the metric ``[1 + masks, n]`` of one batch, intact first."""
        look = self._looked(batch)
        reason = self._why_hooks
        if reason is None and self._captures.known(batch, look) is None:
            around = modules_around(self._passes.forward_func, self._passes.sites[0])  # type: ignore[arg-type]
            reason = None if repays(look, around, len(self._plan), batches) else "the job is small"
        captured = self._captured(batch, look, batches) if reason is None else reason
        if isinstance(captured, Captured) and captured.chooser.is_slow:
            captured = SLOW
        if isinstance(captured, str):
            return self._hooked(batch, first, look, captured)
        try:
            return self._graphed(captured, batch, first, look)
        except Differs:
            if not captured.chooser.demote():
                raise
            return self._graphed(captured, batch, first, look)

    def _captured(self, batch: Batch, look: Look, batches: float = 1.0) -> Captured | str:
        """Return the capture for batches like this, or the reason why there is none, which is said once."""
        known = self._captures.known(batch, look)
        captured = self._captures.of(batch, look, batches)
        if known is None and isinstance(captured, str):
            self._warn(captured)
        return captured

    def _replace(self, batch: Batch, first: int) -> list[Callable[[Tensor], Tensor]]:
        return [partial(reference, target=batch.target, first=first) for reference in self._passes.references]

    def _judge(self, batch: Batch, first: int, look: Look) -> _Judge:
        return _Judge(self._passes, self._plan, batch, first, look)

    def _graphed(self, captured: Captured, batch: Batch, first: int, look: Look) -> Tensor:
        """Return the metric of one batch by the graph; its intact outputs are checked."""
        chooser, judge = captured.chooser, self._judge(batch, first, look)
        known = [ZERO] if captured.is_proven else [ZERO, self._plan.half]
        with torch.no_grad():
            opened = captured.opened(batch, look, self._replace(batch, first))
            outputs = opened.closed_form(judge)
            name = "graph" if outputs is None else "closed form"
            if outputs is None:
                outputs = chooser.outputs(opened, known, judge, TOLERANCE if captured.is_proven else CLOSE)
                outputs = self._rest_hooked(outputs, batch, first)
            table = self._metric_table.measure(batch, look.outputs, outputs, opened.exactly)
        captured.is_proven = True
        details = chooser.description if name == "graph" else ""
        self._executions[f"{name} ({details})" if details else name] = None
        return table

    def _rest_hooked(self, outputs: Outputs, batch: Batch, first: int) -> Outputs:
        """Yield ``outputs``, and those of all other masks by full passes: the graph may have turned out slower."""
        left = dict.fromkeys(range(len(self._plan)))
        for numbers, found in outputs:
            for number in numbers:
                del left[number]
            yield numbers, found
        for number in left:
            yield [number], self._passes.ablated(batch, self._plan.mask(number, batch.target.device), first)
            self._executions[f"hook loop ({SLOW})"] = None

    def _hooked(self, batch: Batch, first: int, look: Look, reason: str) -> Tensor:
        passes, name = self._passes, f"hook loop ({reason})"

        def outputs() -> Outputs:
            for number in range(len(self._plan)):
                yield (number,), passes.ablated(batch, self._plan.mask(number, batch.target.device), first)

        table = self._metric_table.measure(batch, look.outputs, outputs())
        if name not in self._executions:
            passes.check_repeats(batch, look.outputs)
        self._executions[name] = None
        return table

    def _fall_back(self, reason: str) -> None:
        """Run full passes from now on."""
        self._why_hooks = reason
        self._warn(reason)

    def _warn(self, reason: str) -> None:
        if os.environ.get("CAPTUM_ABLATE_STRICT") == "1":
            raise RuntimeError(f"{self._passes.names}: no graph ({reason})")
        warn(
            f"{self._passes.names}: no graph ({reason}); full forward passes are used instead, which are exact but "
            "slower"
        )

    def _largest_is_right(self, batch: Batch, first: int, intact: Any) -> bool:
        """Check the largest step of the last batch against a full forward pass."""
        if all(name.startswith("hook loop") for name in self._executions):
            return True
        mask = self._plan.mask(self._plan.largest, batch.target.device)
        return self._passes.is_right(batch, mask, first, self._metric_table.largest, intact)


def _why_hooks(forward_func: ForwardFunc) -> str | None:
    if not isinstance(forward_func, nn.Module):
        return "forward_func is not an nn.Module"
    return "modules have hooks, which must see their calls" if has_hooks(forward_func) else None


def _batches_left(batches: Iterable[Batch], done: int) -> float:
    """Return how many batches are left, this one included; 1 if that is not known."""
    try:
        return max(1.0, len(batches) - done)  # type: ignore[arg-type]  # TypeError says that it is not known
    except TypeError:
        return 1.0


def _under(opened: Opened, mask: Tensor) -> Any:
    """Return the outputs under ``mask``, ``[units]`` or ``[n, units]``, by the operators of a full pass."""
    by_row = mask.ndim == 2
    with torch.no_grad():
        return opened.outputs(mask.cpu() if by_row else mask.cpu()[None], by_row=by_row)
