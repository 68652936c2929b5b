"""Update the first affine operator after the layer from mask to mask, instead of computing it for each mask.

Let x be the operator's input, known for intact and for ablated units, and A its linear part. If one mask ablates the
units g in addition to another's, the results differ by ``A[:, g] (x_intact - x_ablated)[g]``. So a whole chain of
nested masks costs about one application of A.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_ablate.ablation.separable import Separated
from captum_ablate.ablation.tape import Op, Ref

ANCHOR = 64
"""Updates after which the result is computed anew, so that rounding does not add up."""


@dataclass
class AffineStep:
    """An affine operator on the slot ``source``, whose intact and ablated values are known; its result is ``slot``."""

    slot: int
    source: int
    separated: Separated
    apply: Callable[[Tensor], Tensor]
    change: Callable[[Tensor, Tensor], Tensor]
    channels_last: bool

    def __post_init__(self) -> None:
        axis = self.separated.slots[self.source]
        self.difference = self.separated.intact[self.source] - self.separated.ablated[self.source]
        by_unit = axis.owner.argsort(stable=True)
        by_unit = by_unit[int((axis.owner < 0).sum()) :]
        counts = torch.bincount(axis.owner[axis.owner >= 0])
        self.per_unit = int(counts[0]) if bool((counts == counts[0]).all()) else 0
        self.places = by_unit.reshape(len(counts), -1) if self.per_unit else by_unit.split(counts.tolist())
        self.size = len(axis.owner)
        self._starts: dict[bool, Tensor] = {}

    def start(self, ablated: bool) -> _State:
        """Return the state with all units ablated, or with none."""
        if ablated not in self._starts:
            source = self.separated.ablated if ablated else self.separated.intact
            self._starts[ablated] = self.apply(source[self.source])
        mask = torch.full((len(self.places),), ablated, device=self.difference.device)
        return _State(self, self._starts[ablated], mask)

    def compute(self, masks: Tensor) -> Tensor:
        """Return the result for ``masks [k, units]``, computed anew."""
        return self.apply(self.separated.mixed(self.source, masks, channels_last=self.channels_last))

    def where(self, group: Tensor) -> Tensor:
        """Return the indices of the units of ``group`` along the axis of units."""
        if isinstance(self.places, Tensor):
            return self.places[group.to(self.places.device)].flatten()
        return torch.cat([self.places[u] for u in group.tolist()])

    def joined(self, values: list[Tensor]) -> Tensor:
        """Return the results for several masks in one new tensor."""
        if len(values) == 1:
            return values[0].clone()
        if self.channels_last and values[0].ndim == 4:
            n = len(values[0])
            whole = values[0].new_empty((len(values) * n, *values[0].shape[1:]))
            whole = whole.contiguous(memory_format=torch.channels_last)
            for k, value in enumerate(values):
                whole[k * n : (k + 1) * n].copy_(value)
            return whole
        return torch.cat(values)


@dataclass
class _State:
    """The result for the current mask of a walk along a chain."""

    step: AffineStep
    value: Tensor
    mask: Tensor
    moves: int = 0

    def move(self, group: Tensor, *, back: bool) -> None:
        """Ablate the units of ``group``, or restore them (``back``)."""
        if not len(group):
            return
        self.mask[group.to(self.mask.device)] = not back
        self.moves += 1
        step = self.step
        places = step.where(group)
        if 2 * len(places) > step.size or self.moves % ANCHOR == 0:
            self.value = step.compute(self.mask[None])
            return
        change = step.change(_columns(step.difference, places), places)
        self.value = self.value + change if back else self.value - change


def _columns(values: Tensor, places: Tensor) -> Tensor:
    """Return the indices ``places`` of the second axis, by the call that is fast for this memory format."""
    return values.index_select(1, places) if values.is_contiguous() else values[:, places]


def affine_step(
    op: Op,
    separated: Separated,
    channels_last: bool,
    constant: Callable[[Any], Tensor | None],
    by_rows: Callable[[Tensor], Tensor],
) -> AffineStep | None:
    """Return the step for an operator that is affine in one slot of ``separated``, else None.

    ``constant(argument)`` returns the value of an argument that depends on neither inputs nor ablation.
    ``by_rows(matrix)`` returns the matrix with contiguous rows.
    """
    place = {"convolution": 0, "addmm": 1, "mm": 0}.get(op.name)
    if place is None or op.outs[0] is None:
        return None
    source = op.args[place]
    if not isinstance(source, Ref) or source.slot not in separated.slots or separated.slots[source.slot].dim != 1:
        return None
    others = [a for i, a in enumerate(op.args[:3]) if i != place and isinstance(a, (Ref, Tensor))]
    values = [constant(a) for a in others]
    if any(v is None for v in values) or any(v not in (1, 1.0) for v in op.kwargs.values()):
        return None
    args = [constant(a) if isinstance(a, (Ref, Tensor)) and i != place else a for i, a in enumerate(op.args)]
    weight = args[1] if op.name != "addmm" else args[2]
    assert isinstance(weight, Tensor)
    if op.name == "convolution":
        if args[6] or args[8] != 1:
            return None

        def change(part: Tensor, places: Tensor) -> Tensor:
            return op.func(part, _columns(weight, places), None, *args[3:])
    else:
        rows = by_rows(weight)

        def change(part: Tensor, places: Tensor) -> Tensor:
            return part @ rows.index_select(0, places)

    def apply(whole: Tensor) -> Tensor:
        return op.func(*args[:place], whole, *args[place + 1 :], **op.kwargs)

    return AffineStep(op.outs[0], source.slot, separated, apply, change, channels_last)
