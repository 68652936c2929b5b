"""Measure a metric under many masks: capture what follows the layer once, run it for each mask, and check the results.

The outer loop is over batches, the inner one over masks. Each batch runs once by the model itself, which gives the
activations and the outputs that the graph must return with no unit ablated. Whatever has no graph, fails a check, or
is too small to repay a capture, runs by full passes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from captum_ablate.ablation.hook_loop import Probe
from captum_ablate.ablation.metric_table import MetricTable, Outputs
from captum_ablate.ablation.metrics import Metric, class_outputs
from captum_ablate.ablation.new.capture import capture
from captum_ablate.ablation.new.checks import CLOSE, TOLERANCE, equal
from captum_ablate.ablation.new.choose import ZERO, Chooser, Differs, modules_around, repays
from captum_ablate.ablation.new.graph import CannotCapture
from captum_ablate.ablation.new.hooked import FEW, FullPasses, Look
from captum_ablate.ablation.new.suffix import Opened, Suffix, Way
from captum_ablate.ablation.plan import Plan
from captum_ablate.ablation.reference import Reference
from captum_ablate.ablation.site import Site
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.model import ForwardFunc, has_hooks
from captum_ablate.inputs.unchanged import unchanged
from captum_ablate.inputs.warnings import warn

WHOLE = 32
"""Samples up to which the check of a capture runs the whole batch."""


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


@dataclass
class Captured:
    """The graph of one shape of inputs, and the way that its masks run."""

    suffix: Suffix
    chooser: Chooser
    is_proven: bool = False


class _Judge:
    """What the outputs of some masks must be, by full passes: of the intact mask, and of the half-ablated one."""

    def __init__(self, passes: FullPasses, plan: Plan, batch: Batch, first: int, look: Look) -> None:
        self._passes, self._plan, self._batch, self._first, self._look = passes, plan, batch, first, look

    def __call__(self, number: int, outputs: Any, within: float) -> bool:
        if number == ZERO:
            return equal(outputs, class_outputs(self._look.outputs), within)
        return self._passes.is_right(self._batch, self._plan, number, self._first, outputs)


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
        self._captured: dict[Any, Captured | str] = {}
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
        last: tuple[Batch, int] | None = None
        for batch in batches:
            try:
                table = self._batch(batch, first, _batches_left(batches, len(tables)))
            except Differs as error:
                self._fall_back(str(error))
                if tables:
                    return self._restart(batches)
                table = self._batch(batch, first, 1.0)
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
        passes = self._passes
        look = self._looked(batch)
        try:
            captured = self._why_hooks or self._capture(batch, look)
            if isinstance(captured, Captured):
                opened = self._opened(captured, batch, first, look, Way())
                zero = torch.zeros(1, self._plan.units, dtype=torch.bool)
                judge = _Judge(passes, self._plan, batch, first, look)
                half = self._plan.mask(self._plan.half, zero.device)[None]
                with _without_autocast(batch):
                    right = judge(ZERO, opened.outputs(zero), TOLERANCE)
                    right = right and (captured.is_proven or judge(self._plan.half, opened.outputs(half), TOLERANCE))
                if not right:
                    raise Differs("the graph differs from a full forward pass")
                captured.is_proven = True
                return BatchOutputs(look.outputs, partial(_under, opened, batch))
        except Differs as error:
            self._fall_back(str(error))
        return BatchOutputs(look.outputs, lambda mask: passes.ablated(batch, mask, first))

    def _looked(self, batch: Batch) -> Look:
        """Return a plain pass; the first one must repeat what was seen before."""
        if self._seen is None:
            self._seen = self._passes.probe(batch)
        look = self._passes.look(batch)
        if not self._captured and not self._executions:
            self._passes.check_repeats(batch, look.outputs, self._seen)
        return look

    def _batch(self, batch: Batch, first: int, batches: float) -> Tensor:
        """Return the metric ``[1 + masks, n]`` of one batch, intact first."""
        look = self._looked(batch)
        if self._why_hooks is not None:
            return self._hooked(batch, first, look, self._why_hooks)
        key = _key(batch, look)
        if key not in self._captured:
            around = modules_around(self._passes.forward_func, self._passes.sites[0])  # type: ignore[arg-type]
            if not repays(look, around, len(self._plan), batches):
                return self._hooked(batch, first, look, "the job is small")
        captured = self._capture(batch, look, batches)
        if isinstance(captured, str):
            return self._hooked(batch, first, look, captured)
        try:
            return self._graphed(captured, batch, first, look)
        except Differs:
            if not captured.chooser.demote():
                raise
            return self._graphed(captured, batch, first, look)

    def _capture(self, batch: Batch, look: Look, batches: float = 1.0) -> Captured | str:
        """Return the graph for the shapes of a batch, or the reason why there is none."""
        key = _key(batch, look)
        if key not in self._captured:
            try:
                self._captured[key] = self._new_capture(batch, look, batches)
            except CannotCapture as error:
                self._captured[key] = str(error)
                self._warn(str(error))
        return self._captured[key]

    def _new_capture(self, batch: Batch, look: Look, batches: float) -> Captured:
        passes = self._passes
        own = partial(capture, passes.forward_func, passes.sites, look.activations)
        with unchanged(passes.forward_func):
            try:
                graph = own(batch if batch.why_whole() else batch.take(slice(FEW)), whole=False)
            except CannotCapture:
                graph = own(batch, whole=True)
        suffix = Suffix(graph, passes.sites)
        masks = (len(self._plan) + 1) * batches
        return Captured(suffix, Chooser(suffix, self._plan, len(batch.target), masks))

    def _opened(self, captured: Captured, batch: Batch, first: int, look: Look, way: Way) -> Opened:
        """Return a batch, run up to the first site."""
        suffix, target = captured.suffix, batch.target
        inputs = [leaf for leaf in tree_flatten(batch.arguments)[0] if isinstance(leaf, Tensor)]
        replace = [partial(reference, target=target, first=first) for reference in self._passes.references]
        try:
            known = suffix.prefix(inputs, len(target)) | dict(zip(suffix.graph.inputs, inputs, strict=True))
            return Opened(suffix, way, known, look.activations[0], replace)
        except RuntimeError as error:  # a size that is none of a batch like this
            raise Differs(f"the graph does not take this batch: {error}".splitlines()[0]) from error

    def _graphed(self, captured: Captured, batch: Batch, first: int, look: Look) -> Tensor:
        """Return the metric of one batch by the graph; its intact outputs are checked."""
        kept: dict[Way, Opened] = {}

        def opened(way: Way) -> Opened:
            if way not in kept:
                kept[way] = self._opened(captured, batch, first, look, way)
            return kept[way]

        def exactly(number: int) -> Any:
            return opened(Way()).outputs(self._plan.mask(number, torch.device("cpu"))[None])

        chooser, judge = captured.chooser, _Judge(self._passes, self._plan, batch, first, look)
        known = [ZERO] if captured.is_proven else [ZERO, self._plan.half]
        with torch.no_grad(), _without_autocast(batch):
            outputs = chooser.outputs(opened, known, judge, TOLERANCE if captured.is_proven else CLOSE)
            table = self._metric_table.measure(batch, look.outputs, outputs, exactly)
        captured.is_proven = True
        self._executions[f"graph ({chooser.best})" if str(chooser.best) else "graph"] = None
        return table

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

    def _largest_is_right(self, batch: Batch, first: int) -> bool:
        """Check the largest step of the last batch against a full forward pass."""
        return self._passes.is_right(batch, self._plan, self._plan.largest, first, self._metric_table.largest)


def _why_hooks(forward_func: ForwardFunc) -> str | None:
    if not isinstance(forward_func, nn.Module):
        return "forward_func is not an nn.Module"
    return "modules have hooks, which must see their calls" if has_hooks(forward_func) else None


def _key(batch: Batch, look: Look) -> Any:
    """Return what a graph depends on: shapes and types of the arguments' tensors, and all else in them."""
    leaves, spec = tree_flatten(batch.arguments)
    n = len(batch.target)

    def mark(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            size = ("n", *leaf.shape[1:]) if leaf.ndim and len(leaf) == n else tuple(leaf.shape)
            return size, leaf.dtype, leaf.device
        return type(leaf), repr(leaf)

    shapes = tuple(tuple(a.shape[1:]) for a in look.activations)
    return str(spec), tuple(map(mark, leaves)), shapes


def _batches_left(batches: Iterable[Batch], done: int) -> float:
    """Return how many batches are left, this one included; 1 if that is not known."""
    try:
        return max(1.0, len(batches) - done)  # type: ignore[arg-type]  # TypeError says that it is not known
    except TypeError:
        return 1.0


def _under(opened: Opened, batch: Batch, mask: Tensor) -> Any:
    """Return the outputs under ``mask``, ``[units]`` or ``[n, units]``, by the operators of a full pass."""
    by_row = mask.ndim == 2
    with torch.no_grad(), _without_autocast(batch):
        return opened.outputs(mask.cpu() if by_row else mask.cpu()[None], by_row=by_row)


def _without_autocast(batch: Batch) -> AbstractContextManager[Any]:
    """Switch autocast off: the casts that it made are operators of the graph."""
    return torch.autocast(batch.target.device.type, enabled=False)
