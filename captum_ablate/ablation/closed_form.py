"""Decide whether the closed form of an affine suffix serves a batch, and check it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from captum_ablate.ablation.affine import AffineTail, affine_tail
from captum_ablate.ablation.agreement import equal, is_finite
from captum_ablate.ablation.full_passes import FullPasses
from captum_ablate.ablation.metric_table import Outputs
from captum_ablate.ablation.metrics import class_outputs
from captum_ablate.ablation.plan import Plan
from captum_ablate.ablation.ready import Ready
from captum_ablate.ablation.recording import Recording

JOINED = 2**16
"""Numbers of outputs that the metric takes at once: below, the calls cost more than the work."""


def joined(outputs: Iterator[tuple[int, Tensor]]) -> Outputs:
    """Yield the outputs of several masks together, one after the other, as many as make ``JOINED`` numbers."""
    numbers: list[int] = []
    found: list[Tensor] = []
    for number, one in outputs:
        numbers.append(number)
        found.append(one)
        if one.numel() * len(found) >= JOINED:
            yield numbers, torch.cat(found)
            numbers, found = [], []
    if found:
        yield numbers, torch.cat(found)


class ClosedForm:
    """Compute outputs in closed form if the suffix is affine and this pays."""

    def __init__(self, passes: FullPasses, plan: Plan) -> None:
        self._passes, self._plan = passes, plan
        self._tail: AffineTail | None = None
        self._is_off, self._is_proven = False, False

    def outputs(self, ready: Ready, first: int) -> Outputs | None:
        """Return the outputs for every mask, or None if the closed form does not apply."""
        taken, reference = ready.taken, ready.references[0]
        if self._is_off or len(taken.sites) > 1 or not isinstance(reference, Tensor):
            return None
        if not is_finite(taken.activation, reference):
            return None  # an infinite activation has no share: infinity times 0 is not 0
        outputs = class_outputs(taken.outputs)
        if self._tail is None:
            if not isinstance(taken, Recording) or self._is_too_wide(outputs, len(taken.activation)):
                return None
            found = affine_tail(self._passes.forward_func, taken, reference)
            self._tail, self._is_off = (None, True) if isinstance(found, str) else (found, False)
            if self._tail is None:
                return None
        everything = torch.ones(self._plan.units, dtype=torch.bool, device=ready.device)
        is_recorded = isinstance(taken, Recording)
        ablated = class_outputs(ready.replay(everything) if is_recorded else ready.plain.one(everything))
        assert isinstance(ablated, Tensor)
        if not equal(self._tail.intact(taken, reference, ablated), outputs):
            self._is_off = True
            return None
        if not self._is_proven and not self._half_is_right(ready, reference, ablated, first):
            self._is_off = True
            return None
        self._is_proven = True
        return joined(self._tail.outputs(taken, reference, self._plan, ablated))

    def _is_too_wide(self, outputs: Any, n: int) -> bool:
        """Tell whether the backward passes for the Jacobian would cost more than the replays."""
        return isinstance(outputs, Tensor) and len(self._plan) < 4 + 3 * (outputs.shape[-1] / n)

    def _half_is_right(self, ready: Ready, reference: Tensor, ablated: Tensor, first: int) -> bool:
        """Check the closed form against a full forward pass once, at the half-ablated step."""
        assert self._tail is not None
        half = self._plan.half
        found = self._tail.outputs(ready.taken, reference, self._plan, ablated)
        closed = next(o for k, o in found if k == half)
        full = self._passes.ablated(ready.taken.batch, self._plan.mask(half, ready.device), first)
        return equal(closed, class_outputs(full))
