"""Rewrite a piece of a graph: batch norm folded into the convolution before it, and channels-last memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from captum_ablate.ablation.graph import argument, attribute, name_of
from captum_ablate.ablation.separate import BATCH_NORMS, first_alone


def fold(piece: fx.GraphModule) -> bool:
    """Rewrite ``piece`` so that convolutions do the work of the batch norms after them; tell whether it changed.

    Constants of four axes are kept in channels-last memory; ``in_channels_last`` lays out what the piece is given.
    Half precision is left as it is.
    """
    norms = [node for node in piece.graph.nodes if _is_foldable(node)]
    for norm in norms:
        _fold(piece, norm, norm.args[0])
    piece.graph.eliminate_dead_code()
    images = [node for node in piece.graph.nodes if node.op == "get_attr" and _is_image(attribute(piece, node.target))]
    for node in images:
        with piece.graph.inserting_before(node):
            node.replace_all_uses_with(_constant(piece, f"last_{node.name}", attribute(piece, node.target)))
    piece.graph.eliminate_dead_code()
    piece.recompile()
    return bool(norms or images)


def in_channels_last(value: Tensor) -> Tensor:
    """Return a value of four axes in channels-last memory, any other as it is."""
    return value.contiguous(memory_format=torch.channels_last) if _is_image(value) else value


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.dtype in (torch.float32, torch.float64)


def _is_foldable(norm: fx.Node) -> bool:
    """Tell whether a node is a batch norm in evaluation mode whose input is a convolution that it alone reads."""
    if name_of(norm) not in BATCH_NORMS.split() or argument(norm, "training", False):
        return False
    conv: Any = norm.args[0]
    if name_of(conv) != "convolution" or len(conv.users) > 1 or argument(conv, "transposed"):
        return False
    constants = [*conv.args[1:3], *norm.args[1:5]]
    is_constant = all(a is None or a.op == "get_attr" for a in constants) and None not in norm.args[3:5]
    return is_constant and first_alone(norm) and conv.meta["val"].dtype in (torch.float32, torch.float64)


def _fold(piece: fx.GraphModule, norm: fx.Node, conv: Any) -> None:
    constants: list[Any] = [*conv.args[1:3], *norm.args[1:5]]
    values: list[Any] = [None if a is None else attribute(piece, a.target).detach().double() for a in constants]
    weight, bias, gamma, beta, mean, var = values
    dtype = attribute(piece, constants[0].target).dtype
    epsilon = argument(norm, "eps", argument(norm, "epsilon"))
    scale = (var + epsilon).rsqrt() * (1 if gamma is None else gamma)
    shift = ((0 if bias is None else bias) - mean) * scale + (0 if beta is None else beta)
    scaled = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    with piece.graph.inserting_before(conv):
        new = [_constant(piece, f"{conv.name}_{k}", v.to(dtype)) for k, v in enumerate((scaled, shift))]
    conv.args = (conv.args[0], *new, *conv.args[3:])
    for user in list(norm.users):
        user.replace_all_uses_with(conv)


def _constant(piece: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    piece.register_buffer(name, in_channels_last(value.detach()))
    return piece.graph.get_attr(name)
