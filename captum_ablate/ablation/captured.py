"""The captures of a run: one for each shape of inputs, with the way that its masks run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from captum_ablate.ablation.capture import capture
from captum_ablate.ablation.checks import equal, is_finite, taking_batch
from captum_ablate.ablation.choose import Chooser, Judge
from captum_ablate.ablation.closed_form import LARGEST, ClosedForm, has_equal_units, joined, why_not_affine
from captum_ablate.ablation.graph import CannotCapture, piece, shape_of
from captum_ablate.ablation.hooked import FEW, FullPasses, Look
from captum_ablate.ablation.metric_table import Outputs
from captum_ablate.ablation.metrics import class_outputs
from captum_ablate.ablation.opened import Opened
from captum_ablate.ablation.plan import Plan
from captum_ablate.ablation.suffix import Suffix, Values, Way, without_autocast
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.unchanged import unchanged

CPU = torch.device("cpu")


@dataclass
class Captured:
    """The graph of one shape of inputs; ``is_proven`` once a batch passed all checks."""

    suffix: Suffix
    chooser: Chooser
    plan: Plan
    is_proven: bool = False
    may_close: bool = True
    closed: ClosedForm | None = field(default=None)

    def opened(self, batch: Batch, look: Look, replace: Sequence[Callable[[Tensor], Tensor]]) -> OpenBatch:
        """Return a batch, ready to run under any way."""
        graph, leaves = self.suffix.graph, tree_flatten(batch.arguments)[0]
        inputs = [] if graph.is_tail else [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        with taking_batch():
            known = self.suffix.prefix(inputs, len(batch.target)) | dict(zip(graph.inputs, inputs, strict=True))
        return OpenBatch(self, known, look, replace)


class OpenBatch:
    """One batch of a capture, opened under each way that is asked for."""

    def __init__(
        self, captured: Captured, known: Values, look: Look, replace: Sequence[Callable[[Tensor], Tensor]]
    ) -> None:
        self._captured, self._known, self._look, self._replace = captured, known, look, replace
        self._kept: dict[Way, Opened] = {}

    def __call__(self, way: Way) -> Opened:
        """Return the batch under a way."""
        if way not in self._kept:
            activation = self._look.activations[0]
            with taking_batch():
                self._kept[way] = Opened(self._captured.suffix, way, self._known, activation, self._replace)
        return self._kept[way]

    def exactly(self, number: int) -> Any:
        """Return the outputs under a mask of the plan by the operators of a full pass."""
        return self(Way()).outputs(self._captured.plan.mask(number, CPU)[None])

    def closed_form(self, agrees: Judge) -> Outputs | None:
        """Return the outputs for every mask in closed form, or None if what follows the layer is not affine."""
        captured, plan = self._captured, self._captured.plan
        intact: Any = class_outputs(self._look.outputs)
        activation = self._look.activations[0]
        replaced = self._replace[0](activation).expand_as(activation)
        if not captured.may_close or not is_finite(activation, replaced):
            return None  # an infinite activation has no share: infinity times 0 is not 0
        if captured.closed is None:
            captured.closed = self._affine(activation, intact)
        closed, was_proven = captured.closed, captured.is_proven
        captured.may_close = closed is not None
        if closed is None:
            return None
        ablated = self(Way()).outputs(torch.ones(1, plan.units, dtype=torch.bool))
        right = equal(closed.intact(activation, replaced, ablated), intact)
        if right and not was_proven:
            found = closed.outputs(activation, replaced, intact, ablated, plan)
            right = agrees(plan.half, next(outputs for number, outputs in found if number == plan.half), 0.0)
        captured.may_close = right
        if not right:
            return None
        return joined(closed.outputs(activation, replaced, intact, ablated, plan))

    def _affine(self, activation: Tensor, intact: Any) -> ClosedForm | None:
        """Return the closed form if it exists and pays."""
        suffix, n, plan = self._captured.suffix, len(activation), self._captured.plan
        [*segments], results = suffix.segments, suffix.graph.results
        if len(segments) > 1 or len(results) > 1 or not isinstance(intact, Tensor) or intact.ndim != 2:
            return None
        classes, owner = intact.shape[1], segments[0].owners[segments[0].start]
        pays = self._captured.chooser.wants_closed_form(classes, n)
        if not pays or activation[0].numel() * classes > LARGEST or not has_equal_units(owner, activation.shape):
            return None
        if why_not_affine(segments[0].inside, segments[0].start, results[0]) or plan.units < 1:
            return None
        given = segments[0].given
        made = piece(suffix.graph.root, segments[0].inside, [segments[0].start, *given], results[0], n)

        def run(start: Tensor) -> Tensor:
            with without_autocast(start.device), taking_batch():
                return made(start, *(self._known[node] for node in given))

        return ClosedForm(run, activation, classes, owner)


class Captures:
    """The captures of a run by the shapes of the inputs, or the reasons why there is none."""

    def __init__(self, passes: FullPasses, plan: Plan) -> None:
        self._passes, self._plan = passes, plan
        self._found: dict[Any, Captured | str] = {}

    def known(self, batch: Batch, look: Look) -> Captured | str | None:
        """Return the capture for batches like this, the reason why there is none, or None if none was tried."""
        return self._found.get(_key(batch, look))

    def of(self, batch: Batch, look: Look, batches: float = 1.0) -> Captured | str:
        """Return the capture for batches like this, of which so many are left."""
        key = _key(batch, look)
        if key not in self._found:
            try:
                self._found[key] = self._captured(batch, look, batches)
            except CannotCapture as error:
                self._found[key] = str(error)
        return self._found[key]

    def _captured(self, batch: Batch, look: Look, batches: float) -> Captured:
        passes, n = self._passes, len(batch.target)
        assert isinstance(passes.forward_func, nn.Module)
        own = partial(capture, passes.forward_func, passes.sites, look.activations)
        with unchanged(passes.forward_func):
            try:
                graph = own(batch if batch.why_whole() else batch.take(slice(FEW)), whole=False)
            except CannotCapture:
                graph = own(batch, whole=True)
        outputs = [leaf for leaf in tree_flatten(class_outputs(look.outputs))[0] if isinstance(leaf, Tensor)]
        if [shape_of(node, n) for node in graph.results] != [value.shape for value in outputs]:
            raise CannotCapture("the outputs have other shapes than those of the model")
        suffix = Suffix(graph, passes.sites)
        chooser = Chooser(suffix, self._plan, n, (len(self._plan) + 1) * batches, look.before + look.after)
        return Captured(suffix, chooser, self._plan)


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
