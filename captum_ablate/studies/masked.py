"""A batch under masks of its own: every sample with other units ablated, in one layer or in several at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from captum_ablate.data import Batch, call
from captum_ablate.layers import ForwardFunc
from captum_ablate.metrics import class_outputs
from captum_ablate.replay import Reference, Site


@dataclass(frozen=True)
class Place:
    """A site, the number of its units, and what stands in the place of an ablated one."""

    site: Site
    units: int
    reference: Reference


class OpenBatch:
    """The outputs of one batch, intact and under any mask over the units of all places, in their order."""

    def __init__(self, forward_func: ForwardFunc, places: Sequence[Place], batch: Batch, first: int) -> None:
        self._forward_func, self._places, self._batch, self._first = forward_func, places, batch, first
        none = torch.zeros(len(batch.target), sum(p.units for p in places), dtype=torch.bool)
        self.intact = self.outputs_under(none)

    def outputs_under(self, mask: Tensor) -> Tensor:
        """Return the class outputs ``[n, classes]`` with the units of ``mask [n, units]`` ablated, on the CPU."""
        parts = mask.split([place.units for place in self._places], dim=1)
        with ExitStack() as stack, torch.no_grad():
            for place, own in zip(self._places, parts, strict=True):
                stack.enter_context(place.site.hooked(partial(self._ablated, place, own)))
            outputs = class_outputs(call(self._forward_func, self._batch))
        if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(mask):
            got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ValueError(f"the model must give one output per class, [n, classes] with n = {len(mask)}; got {got}")
        if not bool(torch.isfinite(outputs).all()):
            raise ValueError("the model's outputs are NaN or infinite for some samples; check inputs and reference")
        return outputs.cpu()

    def _ablated(self, place: Place, mask: Tensor, output: object) -> object:
        part = place.site.part(output)
        replaced = place.reference(part, self._batch.target, self._first)
        spread = place.site.axis.spread(mask.to(part.device), part.shape)
        return place.site.with_part(output, torch.where(spread, replaced, part))
