"""Tidy a captured graph: no in-place operators, no reading of memory as it lies, constants computed; or refuse it."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from captum_ablate.ablation.graph import CannotCapture, argument, aten, attribute, name_of, resized

IN_PLACE = frozenset(
    "relu_ hardtanh_ silu_ hardswish_ hardsigmoid_ leaky_relu_ elu_ sigmoid_ tanh_ add_ sub_ mul_".split()  # noqa: SIM905
)
"""In-place operators whose other form returns the same numbers."""
VIEWS = (aten.view.default, aten._unsafe_view.default, aten.view_copy.default)


def functional(root: fx.GraphModule, trace_away: Callable[[fx.GraphModule], fx.GraphModule]) -> fx.GraphModule:
    """Return a graph without in-place operators.

    Those whose writing nobody else sees are replaced; if there are others, ``trace_away`` traces the graph once more.
    """
    return root if _replaced(root) else trace_away(root)


def _replaced(root: fx.GraphModule) -> bool:
    """Replace in-place operators whose writing nobody else sees; tell whether these were all."""
    nodes = list(root.graph.nodes)
    place = {node: k for k, node in enumerate(nodes)}
    aliases: dict[int, list[fx.Node]] = {}
    for node in nodes:
        for value in tree_leaves(node.meta.get("val")):
            if isinstance(value, Tensor):
                if value.layout != torch.strided:
                    raise CannotCapture("a value of the pass is sparse")
                aliases.setdefault(_memory(value), []).append(node)
    for node in filter(writes, nodes):
        if not _is_plain(node) or _is_seen(node, aliases, place):
            return False
        node.target = getattr(getattr(aten, name_of(node)[:-1]), node.target._overloadname)
    return True


def _is_seen(node: Any, aliases: dict[int, list[fx.Node]], place: dict[fx.Node, int]) -> bool:
    """Tell whether what an in-place operator writes to is read later by another node than its own."""
    older = [other for other in aliases[_memory(node.args[0].meta["val"])] if place[other] < place[node]]
    return any(place[user] > place[node] for other in older for user in other.users)


def _memory(fake: Tensor) -> int:
    return fake.untyped_storage()._cdata


def writes(node: Any) -> bool:
    """Tell whether an operator writes to one of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_plain(node: Any) -> bool:
    """Tell whether an in-place operator returns what its other form does: same type, on a value of the graph itself."""
    types = {a.meta["val"].dtype for a in node.all_input_nodes if "val" in a.meta}
    return name_of(node) in IN_PLACE and len(types) == 1 and node.args[0].op != "get_attr"


def refuse(root: fx.GraphModule) -> None:
    """Raise unless a graph repeats what the model does."""
    for node in root.graph.nodes:
        if node.op != "call_function" or node.target is operator.getitem:
            continue
        if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace not in ("aten", "prims"):
            raise CannotCapture(f"{node.target} is not an operator of PyTorch")
        if writes(node):
            raise CannotCapture(f"{node.target} writes to what the model keeps")
        if torch.Tag.nondeterministic_seeded in node.target.tags and argument(node, "dropout_p", 1.0) != 0:
            raise CannotCapture(f"{node.target} is random")


def forget_memory(root: fx.GraphModule) -> None:
    """Make operators independent of how values lie in memory: at run time they may lie otherwise."""
    for node in list(root.graph.nodes):
        if node.target in VIEWS:  # a value in another memory format cannot be viewed, but can be reshaped
            node.target = aten.reshape.default
        elif node.target in (aten.as_strided.default, aten.as_strided_.default):
            if not _lies_as_before(node):
                raise CannotCapture("as_strided reads memory as it lies")
            node.replace_all_uses_with(node.args[0])
            root.graph.erase_node(node)
        elif node.target is aten.copy.default and _is_alike(node.args[0].meta["val"], node.args[1].meta["val"]):
            node.replace_all_uses_with(node.args[1])
    root.graph.eliminate_dead_code()


def _lies_as_before(node: fx.Node) -> bool:
    """Tell whether an as_strided names the memory of its input, apart from axes of size 1."""
    source, size, stride = node.args[0].meta["val"], node.args[1], node.args[2]  # type: ignore[union-attr]
    offset = argument(node, "storage_offset") or 0
    axes = zip(size, stride, source.stride(), strict=False)  # type: ignore[arg-type]
    return tuple(source.shape) == tuple(size) and offset == 0 and all(n == 1 or a == b for n, a, b in axes)  # type: ignore[arg-type]


def _is_alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device


def compute_constants(root: fx.GraphModule) -> None:
    """Compute what depends on constants alone (the transpose of a weight, say), and put the values in its place.

    These operators run for real, in order, those in place too. Where others write to their memory, nothing is done.
    """
    known: dict[fx.Node, Any] = {}
    nodes = list(root.graph.nodes)
    constant = _constant(nodes)
    held = {_memory(node.meta["val"]) for node in constant if node.op == "get_attr" and "val" in node.meta}
    inside = {_memory(v) for node in constant for v in tree_leaves(node.meta.get("val")) if isinstance(v, Tensor)}
    written = [node for node in nodes if writes(node) and isinstance(node.args[0], fx.Node)]
    if any(_memory(node.args[0].meta["val"]) in (held if node in constant else inside) for node in written):
        return
    made: dict[tuple[fx.Node, int], fx.Node] = {}
    writings = 0
    for node in nodes:
        if node in constant:
            arguments = fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
            with torch.no_grad():
                is_held = node.op == "get_attr"
                known[node] = attribute(root, node.target) if is_held else node.target(*arguments[0], **arguments[1])
            writings += writes(node)
            continue
        for source in [a for a in node.all_input_nodes if a in constant and a.op != "get_attr"]:
            if isinstance(known[source], Tensor):
                if (source, writings) not in made:
                    made[source, writings] = _buffer(
                        root, source, node, known[source].clone() if written else known[source]
                    )
                node.replace_input_with(source, made[source, writings])
    for node in reversed(nodes):
        if node in constant and not node.users:
            root.graph.erase_node(node)


def _constant(nodes: list[fx.Node]) -> set[fx.Node]:
    """Return the weights and buffers, and the operators that read nothing else and are not made for each sample."""
    found: set[fx.Node] = set()
    for node in nodes:
        reads_constants = node.op == "call_function" and all(a in found for a in node.all_input_nodes)
        if node.op == "get_attr" or (reads_constants and resized(node.args, 1) == node.args):
            found.add(node)
    return found


def _buffer(root: fx.GraphModule, node: fx.Node, reader: fx.Node, value: Tensor) -> fx.Node:
    """Return a new node before ``reader`` with the value of a constant node."""
    name = f"constant_{node.name}_{len(list(root.buffers()))}"
    root.register_buffer(name, value)
    with root.graph.inserting_before(reader):
        new = root.graph.get_attr(name)
    new.meta = node.meta
    return new
