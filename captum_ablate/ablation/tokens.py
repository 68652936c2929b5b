"""Narrow a suffix to the tokens that are read: after a vision transformer's last attention, the class token alone.

If all readers of a value need one position of an axis, its operator runs on that position only. It must act on every
position alone: norms, linear maps, activation functions, the queries of an attention. Results agree to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from captum_ablate.ablation.graph import ROWS, argument, aten, first_value, name_of, shape_of
from captum_ablate.ablation.one_query import ATTENTION, without_keys
from captum_ablate.ablation.separate import ELEMENTWISE

_shape = partial(shape_of, rows=ROWS)


@dataclass(frozen=True)
class Position:
    """Position ``index`` of ``size``, after axes of ``lead`` elements in all. Reshaping leaves it as it is."""

    lead: int
    size: int
    index: int

    def place(self, shape: Sequence[int]) -> tuple[int, int, int] | None:
        """Return its axis, and the elements joined with it in this axis, outside and inside; None if both are."""
        before = 1
        for axis, length in enumerate(shape):
            if self.lead % before == 0 and before * length % (self.lead * self.size) == 0:
                outer, inner = self.lead // before, before * length // (self.lead * self.size)
                return (axis, outer, inner) if 1 in (outer, inner) else None
            before *= length
        return None

    def left(self, shape: Sequence[int]) -> list[int]:
        """Return the shape with this position alone."""
        axis, *_ = self.place(shape) or (-1,)
        return [length // self.size if a == axis else length for a, length in enumerate(shape)]


Wants = dict[Any, Position]
"""The position that an operator reads of some inputs; it reads the others whole."""


def narrow(part: fx.GraphModule) -> bool:
    """Let the operators of a piece of ``ROWS`` samples run on the tokens that are read; tell whether it changed."""
    for several in [node for node in part.graph.nodes if name_of(node) == "unbind"]:
        for node in list(several.users):
            node.target, node.args = aten.select.int, (several.args[0], argument(several, "dim"), node.args[1])
    wants, has_changed = _wants(part.graph), False
    while any(name_of(node) in ("addmm", "mm", "native_layer_norm") for node in wants):
        held: set[Any] = set()
        for node in list(part.graph.nodes):
            if node in wants:
                _rewrite(node, *wants[node], held)
            elif name_of(node) in ("select", "slice") and node.args[0] in held:
                node.args = (*node.args[:2], 0, 1)[: 3 if name_of(node) == "select" else 4]
            elif name_of(node) == "getitem" and node.args[0] in held:
                held.add(node)
                node.meta = node.args[0].meta
        for node in [node for node in part.graph.nodes if node in held and name_of(node) in ATTENTION]:
            without_keys(part, node)
        part.graph.eliminate_dead_code()
        wants, has_changed = _wants(part.graph), True
    part.recompile()
    return has_changed


def _wants(graph: fx.Graph) -> dict[fx.Node, tuple[Position, Wants]]:
    """Return the operators that can run on one position, with that of their result and of their inputs."""
    read: dict[fx.Node, set[Position | None]] = {}
    found: dict[fx.Node, tuple[Position, Wants]] = {}
    for node in reversed(graph.nodes):
        wants, positions = _picked(node), read.get(node, {None})
        position = next(iter(positions)) if len(positions) == 1 else None
        if position is not None and name_of(node) == "getitem" and node.args[1] == 0:
            wants = {node.args[0]: position}
        elif position is not None and name_of(node) in _RULES and position.place(_shape(node)):
            own = _RULES[name_of(node)](node, position)
            if own and first_value(node).dtype in (torch.float32, torch.float64):
                found[node] = position, own
                wants = own
        for source in node.all_input_nodes:
            read.setdefault(source, set()).add(wants.get(source))
    return found


def _picked(node: fx.Node) -> Wants:
    """Return the one position that an operator picks from an axis of its input, not of the samples."""
    if name_of(node) not in ("select", "slice"):
        return {}
    source, picked = _on_meta(node)
    axis = argument(node, "dim") % source.ndim
    size, index = source.shape[axis], picked.storage_offset() // source.stride(axis)
    is_one = size > 1 and size % ROWS and picked.numel() * size == source.numel()
    return {node.args[0]: Position(prod(source.shape[:axis]), size, index)} if is_one else {}


def _rewrite(node: fx.Node, position: Position, wants: Wants, held: set[Any]) -> None:
    """Let an operator run on a position of its result; cut the positions that it reads out of its inputs."""
    for source in wants.keys() - held:
        own, shape = wants[source], _shape(source)
        axis, _, inner = own.place(shape) or (0, 0, 0)
        ends = (own.index, shape[axis], own.size) if inner == 1 else (own.index * inner, (own.index + 1) * inner, 1)
        with node.graph.inserting_before(node):
            cut = node.graph.call_function(aten.slice.Tensor, (source, axis, *ends))
        cut.meta = {"val": torch.empty(own.left(shape), device="meta")}
        node.replace_input_with(source, cut)
    if name_of(node) in ("reshape", "expand"):
        node.args = (node.args[0], position.left(_shape(node)))
    held.add(node)
    node.meta = {"val": torch.empty(position.left(_shape(node)), device="meta")}


def _on_meta(node: fx.Node) -> tuple[Tensor, Tensor]:
    """Return an input and the view of it, without numbers: strides and offset tell what the operator takes."""
    source = torch.empty(_shape(node.args[0]), device="meta")  # type: ignore[arg-type]  # it is a node
    return source, node.target(source, *node.args[1:], **node.kwargs)  # type: ignore[operator]  # it is an operator


def _elementwise(node: Any, position: Position) -> Wants:
    axis, outer, _ = position.place(_shape(node)) or (0, 0, 0)
    shapes = {
        source: (1,) * (len(_shape(node)) - len(_shape(source))) + _shape(source) for source in node.all_input_nodes
    }
    return {
        a: Position(prod(s[:axis]) * outer, position.size, position.index) for a, s in shapes.items() if s[axis] > 1
    }


def _same(node: Any, position: Position) -> Wants:
    """Operators that keep the order of the elements."""
    shape = _shape(node.args[0])
    return {node.args[0]: position} if _shape(node).numel() == shape.numel() and position.place(shape) else {}


def _rows(node: Any, position: Position) -> Wants:
    """Operators on the last axes: norms, and products of rows with a matrix."""
    axis, *_ = position.place(_shape(node)) or (0,)
    first, *others = node.args[1:] if name_of(node) == "addmm" else node.args
    has_rows = first in others or (name_of(node) == "addmm" and len(_shape(node.args[0])) > 1)
    return (
        {first: position}
        if axis < len(_shape(node)) - len(argument(node, "normalized_shape", [0])) and not has_rows
        else {}
    )


def _moved(node: Any, position: Position) -> Wants:
    """Permutations of axes, and one of the places of another axis."""
    axis, *joined = position.place(_shape(node)) or (0,)
    source, view = _on_meta(node)
    lead = next(
        prod(source.shape[:a])
        for a in range(source.ndim)
        if source.stride(a) == view.stride(axis) and source.shape[a] > 1
    )
    return {node.args[0]: Position(lead, position.size, position.index)} if joined == [1, 1] else {}


def _attention(node: Any, position: Position) -> Wants:
    """Attention: each query alone. A mask has an axis of queries too."""
    is_masked = (
        any(argument(node, name) for name in ("attn_mask", "attn_bias", "is_causal")) or node.args[0] in node.args[1:3]
    )
    return {node.args[0]: position} if position.place(_shape(node)) == (2, 1, 1) and not is_masked else {}


WIDE = (torch.float32, torch.float64)
_RULES: dict[str, Callable[[fx.Node, Position], Wants]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(("reshape", "expand", "squeeze", "unsqueeze"), _same),
    **dict.fromkeys(("native_layer_norm", "mm", "addmm"), _rows),
    **dict.fromkeys(("permute", "transpose", "select"), _moved),
    **dict.fromkeys(ATTENTION, _attention),
}
