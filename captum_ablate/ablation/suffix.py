"""Run what follows the sites: for one mask, a stack of masks, or one mask a sample.

A graph with several sites is a chain of segments, each from one site to the next. Masks that agree up to a site share
all that runs before it. In each segment the mask moves past the operators that act on each unit alone: they run once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from captum_ablate.ablation.fold import fold, in_channels_last
from captum_ablate.ablation.graph import (
    ROWS,
    CannotCapture,
    Graph,
    attribute,
    first_value,
    free,
    name_of,
    needed,
    piece,
    shape_of,
)
from captum_ablate.ablation.separate import frontier, mixed, separated
from captum_ablate.ablation.site import Site
from captum_ablate.ablation.tokens import narrow
from captum_ablate.ablation.update import Affine, Walk, affine_operators

Values = dict[fx.Node, Tensor]
Replace = Callable[[Tensor], Tensor]
"""Return what replaces an activation ``[n, ...]``; it broadcasts against it."""


@dataclass(frozen=True)
class Way:
    """How masks run. No way changes the mathematics; ``Way()`` runs the operators of a full pass, so every bit agrees.

    ``stack`` masks run in one pass. ``update`` updates the first affine operators from mask to mask. ``fold`` folds
    batch norm into convolutions, in channels-last memory. ``narrow`` runs operators on the tokens that are read alone.
    """

    update: bool = False
    fold: bool = False
    stack: int = 1
    narrow: bool = False

    @property
    def is_exact(self) -> bool:
        """Tell whether every bit agrees with a full pass."""
        return self == Way()

    def __str__(self) -> str:
        words = [
            "update" if self.update else "",
            "read tokens only" if self.narrow else "",
            "folded batch norm, channels last" if self.fold else "",
            f"{self.stack} masks stacked" if self.stack > 1 else "",
        ]
        return ", ".join(filter(None, words))


class Segment:
    """The nodes from one site up to the next, or to the outputs: ``(site, *given) -> results``."""

    def __init__(
        self, graph: Graph, number: int, site: Site, level: dict[fx.Node, int], pieces: list[fx.GraphModule]
    ) -> None:
        self.graph, self.level, self.start = graph, level, graph.sites[number]
        own = [node for node in graph.nodes if level.get(node) == number]
        asked = {*graph.results, *(a for a in graph.activations[number + 1 :] if a is not None)}
        self.results = [n for n in own if n in asked or any(level.get(u, 0) > number for u in n.users)]
        before = {n for n in graph.nodes if level.get(n, -1) < number and n.op != "get_attr"}
        inside = needed(self.results, before)
        self.inside = [n for n in graph.nodes if n in inside]
        self.given = [n for n in self.inside if n in before]
        shape = torch.Size((1, *shape_of(self.start)[1:]))
        units = torch.arange(site.axis.count(shape))
        self.owners = separated(
            self.inside, self.start, site.axis.spread(units[None], shape), graph.sites[number + 1 :]
        )
        self._device = graph.sites[0].meta["val"].device
        self._pieces: dict[Any, Any] = {}
        self._all_pieces = pieces

    @cached_property
    def affine(self) -> list[Affine]:
        """The affine operators that can be updated from mask to mask."""
        return affine_operators(self.graph.root, self.inside, self.owners)

    @cached_property
    def front(self) -> list[fx.Node]:
        """The separated values that others read."""
        found = frontier(self.owners, set(self.inside))
        return [*found, *(n for n in self.results if n in self.owners and n not in found)]

    @cached_property
    def owner_on_device(self) -> Values:
        """The owners of the values in ``front``, where the network computes."""
        return {node: self.owners[node].to(self._device) for node in self.front}

    def once(self, rows: int) -> fx.GraphModule:
        """Return the separated part, ``(site, *given) -> front``."""
        if rows not in self._pieces:
            self._pieces[rows] = self._new([self.start, *self.given], rows, self.front)
        return self._pieces[rows]

    def rest(self, rows: int, way: Way) -> tuple[Callable[..., tuple[Tensor, ...]], list[fx.Node]]:
        """Return what runs for each mask, and the nodes whose values it is given."""
        key = rows * way.stack, replace(way, stack=1)
        if key not in self._pieces:
            cut = [*(a.node for a in self.affine if way.update), *self.front]
            inside = needed(self.results, cut)
            read = [n for n in [*cut, *self.given] if n in inside]
            made = self._cut(read, rows * way.stack, way.narrow)
            if way.fold:
                fold(made)
            self._pieces[key] = made, read
        return self._pieces[key]

    @cached_property
    def narrows(self) -> bool:
        """Tell whether some operators need to run on a part of the tokens only."""
        has_norm = any(name_of(node) == "native_layer_norm" for node in self.inside)
        return has_norm and narrow(self._new([*self.front, *self.given], ROWS))

    def _cut(self, read: list[fx.Node], rows: int, narrowed: bool) -> fx.GraphModule:
        """Return ``(*read) -> results``, with or without the tokens that nobody reads."""
        made = self._new(read, ROWS if narrowed else rows)
        if not narrowed:
            return made
        narrow(made)
        nodes = list(made.graph.nodes)
        self._all_pieces.append(piece(made, nodes, nodes[: len(read)], nodes[-1].args[0], rows))
        return self._all_pieces[-1]

    def _new(self, given: list[fx.Node], rows: int, results: Sequence[fx.Node] | None = None) -> fx.GraphModule:
        """Return a piece of this segment, which is freed with the others."""
        results = self.results if results is None else results
        self._all_pieces.append(piece(self.graph.root, self.inside, given, tuple(results), rows))
        return self._all_pieces[-1]


class Suffix:
    """A captured graph cut into its prefix and one segment a site."""

    def __init__(self, graph: Graph, sites: Sequence[Site]) -> None:
        self.graph, self.sites = graph, tuple(sites)
        self._pieces = [graph.root]
        weakref.finalize(self, free, self._pieces)
        level = _levels(graph)
        if not any(result in level for result in graph.results):
            raise CannotCapture("no operator leads from the layer to the outputs")
        self.segments = [Segment(graph, k, site, level, self._pieces) for k, site in enumerate(sites)]
        wanted = {n for s in self.segments for n in s.given} | set(graph.results) | {*graph.activations[1:]}
        self._prefix_values = [n for n in graph.nodes if n in wanted and n not in level and n.op != "get_attr"]
        self._prefix: dict[int, fx.GraphModule] = {}

    def prefix(self, inputs: Sequence[Tensor], rows: int) -> Values:
        """Return the values before the first site that are read after it."""
        if not self._prefix_values:
            return {}
        if rows not in self._prefix:
            graph = self.graph
            self._prefix[rows] = piece(graph.root, graph.nodes, graph.inputs, tuple(self._prefix_values), rows)
            self._pieces.append(self._prefix[rows])
        with without_autocast(self.device):
            return dict(zip(self._prefix_values, self._prefix[rows](*inputs), strict=True))

    @property
    def device(self) -> torch.device:
        """The device of the activations."""
        return self.graph.sites[0].meta["val"].device

    @cached_property
    def nodes(self) -> list[fx.Node]:
        """The nodes that run for each mask, and those that they read."""
        return [node for s in self.segments for node in s.inside if node not in s.owners or node in s.front]

    @cached_property
    def made(self) -> int:
        """How many numbers the operators make for one mask and sample."""
        return sum(shape_of(n).numel() for n in self.nodes if n.op == "call_function")

    @cached_property
    def read(self) -> int:
        """How many numbers of weights they read."""
        return sum(attribute(self.graph.root, str(n.target)).numel() for n in self.nodes if n.op == "get_attr")

    @cached_property
    def largest(self) -> int:
        """Bytes of the largest value of one sample."""
        made = [n for n in self.nodes if n.op == "call_function"]
        return max((shape_of(n).numel() * first_value(n).dtype.itemsize for n in made), default=1)

    @cached_property
    def keeps_samples(self) -> bool:
        """Tell whether every value after the sites has one axis of samples: only then masks may be stacked."""
        after = [n for s in self.segments for n in s.inside if n in s.level and isinstance(n.meta["val"], Tensor)]
        return all(sum(size % ROWS == 0 for size in n.meta["val"].shape) == 1 for n in after)

    @property
    def narrows(self) -> bool:
        """Tell whether the last segment can be narrowed to the tokens that are read."""
        return self.segments[-1].narrows

    def has(self, *names: str) -> bool:
        """Tell whether an operator of one of these names runs for each mask."""
        return any(name_of(n) in names for n in self.nodes)


def without_autocast(device: torch.device) -> torch.autocast:
    """Switch autocast off: the casts that it made are operators of the graph."""
    return torch.autocast(device.type, enabled=False)


def _levels(graph: Graph) -> dict[fx.Node, int]:
    """Return the last site that reaches each node, and for constants and the prefix none."""
    level = {site: number for number, site in enumerate(graph.sites)}
    for node in graph.nodes:
        above = [level[a] for a in node.all_input_nodes if a in level]
        if above and node.op == "call_function":
            level[node] = max(above)
    return level


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
