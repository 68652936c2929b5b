"""Update the first affine operator after the layer from mask to mask, instead of computing it for each mask.

Let x be the operator's input, known for intact and for ablated units, and A its linear part. If one mask ablates the
units g in addition to another's, the results differ by ``A[:, g] (x_intact - x_ablated)[g]``. So a whole chain of
nested masks costs about one application of A.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from captum_ablate.ablation.graph import argument, aten, attribute, name_of
from captum_ablate.ablation.separate import Owners, mixed

ANCHOR = 64
"""Updates after which the result is computed anew, so that rounding does not add up."""

INPUT = {"convolution": 0, "addmm": 1, "mm": 0}
"""The affine operators, with the place of their input among the arguments."""


@dataclass
class Affine:
    """An affine ``node`` on the separated value ``source``, with constant weights; ``owner [channels]`` of ``units``.

    ``whole(x)`` is its result. ``change(part, channels)`` applies its linear part to some channels of an input that is
    zero elsewhere.
    """

    node: fx.Node
    source: fx.Node
    units: int
    owner: Tensor
    whole: Callable[[Tensor], Tensor]
    change: Callable[[Tensor, Tensor], Tensor]

    @cached_property
    def channels(self) -> Tensor | list[Tensor]:
        """The channels of each unit, ``[units, k]`` if all have as many."""
        by_unit = self.owner.argsort(stable=True)[int((self.owner < 0).sum()) :]
        counts = torch.bincount(self.owner[self.owner >= 0], minlength=self.units)
        if bool((counts == counts[0]).all()):
            return by_unit.reshape(len(counts), -1)
        return list(by_unit.split(counts.tolist()))

    def channels_of(self, units: Tensor) -> Tensor:
        """Return the channels that belong to some units."""
        if isinstance(self.channels, Tensor):
            return self.channels[units].flatten()
        return torch.cat([self.channels[u] for u in units.tolist()])


def affine_operators(root: nn.Module, nodes: Sequence[fx.Node], owners: Owners) -> list[Affine]:
    """Return the operators on separated values that are affine in them: convolutions and products with a matrix."""
    found = []
    units = 1 + max(int(owner.max()) for owner in owners.values())
    for node in nodes:
        place = INPUT.get(name_of(node))
        if place is None or node in owners or node.args[place] not in owners:
            continue
        source: Any = node.args[place]
        owner = owners[source]
        others = [a for a in node.all_input_nodes if a is not source]
        if any(a.op != "get_attr" for a in others) or node.args.count(source) > 1 or node.kwargs:
            continue
        if owner.ndim < 2 or owner.shape[1] != owner.numel() or owner.numel() == 1:
            continue  # units lie along another axis
        if source.meta["val"].dtype not in (torch.float32, torch.float64):
            continue  # half precision is never rewritten
        if name_of(node) != "convolution" or (not argument(node, "transposed") and argument(node, "groups") == 1):
            found.append(_affine(root, node, place, units, owner.flatten()))
    return found


def _affine(root: nn.Module, node: fx.Node, place: int, units: int, owner: Tensor) -> Affine:
    args = [
        attribute(root, str(a.target)) if isinstance(a, fx.Node) and i != place else a for i, a in enumerate(node.args)
    ]
    weight: Any = args[place + 1]
    source: Any = args[place]
    run: Any = node.target
    owner = owner.to(weight.device)
    if name_of(node) == "convolution":

        def change(part: Tensor, channels: Tensor) -> Tensor:
            return aten.convolution.default(part, _columns(weight, channels), None, *args[3:])
    else:

        @cache
        def rows() -> Tensor:
            return weight.contiguous()  # one row for each channel, so that some are read without the rest

        def change(part: Tensor, channels: Tensor) -> Tensor:
            return part @ rows().index_select(0, channels)

    def whole(x: Tensor) -> Tensor:
        return run(*args[:place], x, *args[place + 1 :])

    return Affine(node, source, units, owner, whole, change)


class Walk:
    """The result of an affine operator along chains of nested masks, for one batch.

    ``intact`` and ``replaced`` ``[n, channels, ...]`` are its input with no unit ablated, and with all.
    """

    def __init__(self, affine: Affine, intact: Tensor, replaced: Tensor) -> None:
        self.affine, self.intact, self.replaced = affine, intact, replaced
        self._difference = intact - replaced
        self._starts: dict[bool, Tensor] = {}
        self._moves = 0
        self.value = intact

    def start(self, *, ablated: bool) -> Tensor:
        """Go to the mask of all units, or of none, and return the result."""
        if ablated not in self._starts:
            self._starts[ablated] = self.affine.whole(self.replaced if ablated else self.intact)
        self.value = self._starts[ablated]
        return self.value

    def move(self, units: Tensor, mask: Tensor, *, back: bool) -> Tensor:
        """Return the result for ``mask [units]``; it ablates ``units`` more than the last one, or fewer (``back``)."""
        channels = self.affine.channels_of(units) if len(units) else units
        if not len(channels):
            return self.value
        self._moves += 1
        if 2 * len(channels) > len(self.affine.owner) or self._moves % ANCHOR == 0:
            owner = self.affine.owner.reshape(1, -1, *[1] * (self.intact.ndim - 2))
            self.value = self.affine.whole(mixed(owner, self.intact, self.replaced, mask[None]))
            return self.value
        change = self.affine.change(_columns(self._difference, channels), channels)
        self.value = self.value + change if back else self.value - change
        return self.value


def _columns(values: Tensor, channels: Tensor) -> Tensor:
    """Return some of the second axis, by the call that is fast for this memory format."""
    return values.index_select(1, channels) if values.is_contiguous() else values[:, channels]
