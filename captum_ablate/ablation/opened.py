"""Run one batch from its first site on: for one mask, a stack of masks, or one mask a sample.

Masks that agree up to a site share all that runs before it, which is kept from mask to mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from captum_ablate.ablation.checks import taking_batch
from captum_ablate.ablation.fold import in_channels_last
from captum_ablate.ablation.graph import ROWS, shape_of
from captum_ablate.ablation.separate import mixed
from captum_ablate.ablation.suffix import Segment, Suffix, Values, Way, without_autocast
from captum_ablate.ablation.update import Walk

Replace = Callable[[Tensor], Tensor]
"""Return what replaces an activation ``[n, ...]``; it broadcasts against it."""


class _Started:
    """A segment of one batch: the values at its site are known, with no unit ablated and with all."""

    def __init__(self, segment: Segment, way: Way, known: Values, activation: Tensor, replaced: Tensor) -> None:
        self.segment, self.way, self.known = segment, way, known
        self._n, self._device = len(activation), activation.device
        self._device = activation.device
        once, given = segment.once(self._n), [known[n] for n in segment.given]
        whole = replaced.expand_as(activation).contiguous() if replaced.shape != activation.shape else replaced
        with without_autocast(self._device):
            ends = [dict(zip(segment.front, once(start, *given), strict=True)) for start in (activation, whole)]
        self._intact, self._replaced = [self._laid_out(values) for values in ends]
        affine = segment.affine if way.update else []
        self._walks = {a.node: Walk(a, self._intact[a.source], self._replaced[a.source]) for a in affine}
        self._last: Tensor | None = None
        self._repeated: dict[tuple[fx.Node, int], Tensor] = {}

    def values(self, masks: Tensor, *, by_row: bool = False) -> Values:
        """Return the results under ``masks [k, units]`` on the CPU, of k n rows; ``by_row``, one mask a sample."""
        k = 1 if by_row else len(masks)
        way = replace(self.way, update=self.way.update and not by_row, stack=k)
        rest, read = self.segment.rest(self._n, way)
        there = masks.to(self._device, non_blocking=True)
        with without_autocast(self._device):
            updated = {} if by_row else self._updated(masks, there)
            given = [
                updated[n] if n in updated else self._fixed(n, k) if n in self.known else self._mixed(n, there, by_row)
                for n in read
            ]
            return dict(zip(self.segment.results, rest(*given), strict=True))

    def _mixed(self, node: fx.Node, masks: Tensor, by_row: bool) -> Tensor:
        owner = self.segment.owner_on_device[node]
        return self._in_format(mixed(owner, self._intact[node], self._replaced[node], masks, by_row=by_row))

    def _updated(self, masks: Tensor, there: Tensor) -> Values:
        """Return the results of the updated operators."""
        found: dict[fx.Node, list[Tensor]] = {node: [] for node in self._walks}
        for mask, own in zip(masks, there, strict=True) if self._walks else ():
            for node, walk in self._walks.items():
                found[node].append(self._moved(walk, mask, own))
            self._last = mask
        return {node: values[0] if len(values) == 1 else torch.cat(values) for node, values in found.items()}

    def _moved(self, walk: Walk, mask: Tensor, there: Tensor) -> Tensor:
        """Go to a mask from the nearest known one: the last, that of no unit, or that of all."""
        last = self._last
        count, distance = int(mask.sum()), len(mask)
        if last is not None:
            more, fewer = (mask & ~last).nonzero().flatten(), (last & ~mask).nonzero().flatten()
            distance = max(len(more), len(fewer)) if not len(more) or not len(fewer) else distance
        if distance < min(count, len(mask) - count):
            return walk.move(more if len(more) else fewer, there, back=not len(more))
        ablated = 2 * count > len(mask)
        walk.start(ablated=ablated)
        return walk.move((mask != ablated).nonzero().flatten(), there, back=ablated)

    def _fixed(self, node: fx.Node, k: int) -> Tensor:
        """Return a value that is the same under all masks, once for each stacked mask."""
        if (node, k) not in self._repeated:
            times = [k if size % ROWS == 0 else 1 for size in node.meta["val"].shape]
            value = self.known[node]
            self._repeated[node, k] = self._in_format(value if k == 1 else value.repeat(times))
        return self._repeated[node, k]

    def _laid_out(self, values: Values) -> Values:
        return {node: self._in_format(value) for node, value in values.items()}

    def _in_format(self, value: Tensor) -> Tensor:
        return in_channels_last(value) if self.way.fold else value


class Opened:
    """One batch, run up to the first site, under one way."""

    def __init__(self, suffix: Suffix, way: Way, known: Values, activation: Tensor, replace: Sequence[Replace]) -> None:
        self.suffix, self.way, self._replace, self.n = suffix, way, replace, len(activation)
        self._first = _Started(suffix.segments[0], way, known, activation, replace[0](activation))
        self._later: dict[int, tuple[bytes, _Started]] = {}
        self._starts = [site.units.start or 0 for site in suffix.sites]

    def outputs(self, masks: Tensor, *, by_row: bool = False) -> Any:
        """Return the outputs for ``masks [k, units]`` on the CPU: k n rows. ``by_row``, one mask a sample, n rows."""
        with taking_batch():
            return self._outputs(masks, by_row)

    def _outputs(self, masks: Tensor, by_row: bool) -> Any:
        started, sites = self._first, self.suffix.sites
        for number in range(1, len(sites)):
            started = self._at(number, started, masks, by_row)
        found = started.known | started.values(masks[:, sites[-1].units], by_row=by_row)
        results = [
            self._whole(node, found[node], len(masks) if not by_row else 1) for node in self.suffix.graph.results
        ]
        return self.suffix.graph.rebuilt(results)

    def _whole(self, node: fx.Node, value: Tensor, k: int) -> Tensor:
        """Return an output that no mask reaches once for each mask."""
        if value.shape == shape_of(node, k * self.n):
            return value
        return value.repeat([k if size % ROWS == 0 else 1 for size in node.meta["val"].shape])

    def _at(self, number: int, started: _Started, masks: Tensor, by_row: bool) -> _Started:
        """Return a later segment after the ablations before it: one for all ``masks``, or one a sample."""
        sites, graph = self.suffix.sites, self.suffix.graph
        key = b"".join(masks[: None if by_row else 1, s.units].contiguous().numpy().tobytes() for s in sites[:number])
        if self._later.get(number, (b"",))[0] != key:
            own = masks[:, sites[number - 1].units]
            found = started.known | started.values(own if by_row else own[:1], by_row=by_row)
            node = graph.activations[number]
            assert node is not None
            segment, activation = self.suffix.segments[number], found[node]
            self._later[number] = key, _Started(segment, self.way, found, activation, self._replace[number](activation))
        return self._later[number][1]

    def can_stack(self, masks: Tensor) -> bool:
        """Tell whether masks differ at the last site alone, so that they can share what runs before it."""
        before = masks[:, : self._starts[-1]]
        return len(self._starts) == 1 or bool((before == before[:1]).all())
