"""Cut pieces out of a captured network: one ``fx.Graph`` without in-place operators.

At each site the graph has a placeholder in the place of the activation. So it computes
``(*sites, *inputs) -> (*activations, *results)``: ``sites`` are the values after an ablation, ``activations`` what came
to each site. All else is a cut: which values are given, which are asked for (``piece``).

Fake values have ``ROWS`` samples, a prime that is no size of a network. Whatever size or argument is a multiple of it
counts samples. So one capture serves every batch size and every number of stacked masks (``resized``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

aten = torch.ops.aten
ROWS = 10007
"""Samples of a fake batch."""


class CannotCapture(Exception):
    """The network has no graph, or one that cannot serve. The message is the reason."""


@dataclass(frozen=True)
class Graph:
    """One capture: its ``nodes``, and which of them are what; ``root`` holds the constants.

    ``sites`` and ``inputs`` are placeholders, an input for each tensor among the model's arguments. ``activations[k]``
    is what comes to site k before an ablation; it is None for the first site of a tail. ``results`` are the tensors of
    the outputs; ``rebuilt(tensors)`` makes the outputs of them. ``node.meta["val"]`` is a node's fake value.
    """

    root: fx.GraphModule
    sites: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    activations: tuple[fx.Node | None, ...]
    results: tuple[fx.Node, ...]
    rebuilt: Callable[[Sequence[Tensor]], Any]

    @property
    def nodes(self) -> list[fx.Node]:
        """The nodes, in running order."""
        return list(self.root.graph.nodes)

    @property
    def is_tail(self) -> bool:
        """Tell whether nothing before the first site was recorded."""
        return self.activations[0] is None


def name_of(node: fx.Node) -> str:
    """Return an operator's name without its overload: "convolution", "getitem"; "" if the node is none."""
    if node.op != "call_function":
        return ""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.split("::")[1]
    return "getitem" if node.target is operator.getitem else ""


def argument(node: fx.Node, name: str, default: Any = None) -> Any:
    """Return an argument by its name in the operator's schema, given or by the schema's default."""
    assert isinstance(node.target, torch._ops.OpOverload)
    for place, known in enumerate(node.target._schema.arguments):
        if known.name == name:
            given = node.args[place] if place < len(node.args) else node.kwargs.get(name, known.default_value)
            return default if given is None else given
    return default


def resized(arguments: Any, rows: int) -> Any:
    """Return arguments of an operator, or a shape, with ``rows`` samples in the place of ``ROWS``."""
    if isinstance(arguments, (list, tuple)):
        return type(arguments)([resized(a, rows) for a in arguments])
    is_size = isinstance(arguments, int) and not isinstance(arguments, bool) and arguments % ROWS == 0
    return arguments // ROWS * rows if is_size else arguments


def attribute(root: nn.Module, path: str) -> Any:
    """Return an attribute of an attribute: ``"a.b"`` is ``root.a.b``."""
    found: Any = root
    for name in path.split("."):
        found = getattr(found, name)
    return found


def reached_by(start: Collection[fx.Node], nodes: Sequence[fx.Node]) -> set[fx.Node]:
    """Return ``start`` and every node that reads it, however indirectly."""
    reached = set(start)
    for node in nodes:
        if any(a in reached for a in node.all_input_nodes):
            reached.add(node)
    return reached


def needed(results: Any, given: Collection[fx.Node] = ()) -> set[fx.Node]:
    """Return the nodes that must run, or be given, for ``results``."""
    found: set[fx.Node] = set()
    stack: list[fx.Node] = []
    fx.node.map_arg(results, stack.append)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += [] if node in given else node.all_input_nodes
    return found


def piece(
    root: nn.Module, nodes: Sequence[fx.Node], given: Sequence[fx.Node], results: Any, rows: int
) -> fx.GraphModule:
    """Return the graph of ``(*given) -> results`` for so many samples: whatever of ``nodes`` lies between them."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    inside = needed(results, given)
    for node in given:
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = node.meta
    for node in nodes:
        if node in inside and node not in copies:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            copies[node].args = resized(copies[node].args, rows)
            copies[node].kwargs = {k: resized(v, rows) for k, v in copies[node].kwargs.items()}
    graph.output(fx.node.map_arg(results, copies.__getitem__))
    return fx.GraphModule(root, graph)


def shape_of(node: fx.Node, rows: int = 1) -> torch.Size:
    """Return the shape of a node's value (of several values, the first) for so many samples."""
    return torch.Size(resized(tuple(first_value(node).shape), rows))


def samples_first(node: fx.Node) -> bool:
    """Tell whether samples lie along the first axis of a node's value, and no other."""
    return [size % ROWS == 0 for size in first_value(node).shape] == [k == 0 for k in range(first_value(node).ndim)]


def first_value(node: fx.Node) -> Tensor:
    """Return a node's fake value; of several values, the first."""
    value = node.meta["val"]
    return value if isinstance(value, Tensor) else value[0]


def free(modules: Iterable[nn.Module]) -> None:
    """Let go of weights: nodes, graphs and modules refer to each other, and would hold them until Python collects."""
    for module in (part for one in modules for part in one.modules()):
        module._parameters.clear()
        module._buffers.clear()
        for name in [name for name, value in module.__dict__.items() if isinstance(value, Tensor)]:
            del module.__dict__[name]
