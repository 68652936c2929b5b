"""Cut what follows the sites into pieces that run once for a batch, and pieces that run for each mask.

A graph with several sites is a chain of segments, each from one site to the next. In each the mask moves past the
operators that act on each unit alone: they run once.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from captum_ablate.ablation.fold import fold
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
from captum_ablate.ablation.separate import frontier, separated
from captum_ablate.ablation.site import Site
from captum_ablate.ablation.tokens import narrow
from captum_ablate.ablation.update import Affine, affine_operators

Values = dict[fx.Node, Tensor]


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
