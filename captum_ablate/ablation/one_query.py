"""Attention with one query needs no keys and values, if they are linear maps of tokens: the query goes through both.

With q the query, ``q . (W_k x + b_k)`` is ``(W_k^T q) . x`` plus a constant that the softmax drops. And
``sum_t a_t (W_v x_t + b_v) = W_v (sum_t a_t x_t) + b_v``. Results agree to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from captum_ablate.ablation.graph import ROWS, argument, attribute, name_of, piece, shape_of

ATTENTION = (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
)
MOVES = ("reshape", "transpose", "permute", "select", "squeeze", "unsqueeze", "clone")
"""Operators that only move elements."""
Map = tuple[Any, bool, Any, Any]
"""Keys or values as a map of tokens ``x [n t, d]``: whether its rows are ordered by sample (or by token), the weight
``[h, d, e]`` and the bias ``[h, e]``."""


@torch.no_grad()
def without_keys(part: fx.GraphModule, node: fx.Node) -> None:
    """Let an attention with one query read the tokens, if its keys and values are linear maps of them."""
    [result], query = node.users, node.args[0]
    maps = [one for one in (_linear_map(part, a) for a in node.args[1:3]) if one is not None]
    if [len(one[2]) for one in maps] != 2 * [shape_of(query, ROWS)[1]]:  # type: ignore[arg-type]  # it is a node
        return
    with part.graph.inserting_before(result):
        for number, (x, by_sample, *tensors) in enumerate(maps):
            names = [f"{node.name}_{number}_{k}" for k in range(2)]
            for name, tensor in zip(names, tensors, strict=True):
                part.register_buffer(name, tensor.contiguous())
            maps[number] = (x, by_sample, *(part.graph.get_attr(name) for name in names))
        new = part.graph.call_function(attend, (query, argument(node, "scale"), *maps))
    new.meta = result.meta
    result.replace_all_uses_with(new)
    part.graph.erase_node(result)
    part.graph.erase_node(node)  # it is tagged as random, so it would not be taken for dead code


def attend(query: Tensor, scale: float | None, key: Map, value: Map) -> Tensor:
    """Return the attention ``[n, h, 1, e]`` of one query ``[n, h, 1, e]`` over tokens."""
    x, y = (
        x.unflatten(0, (len(query), -1)) if by_sample else x.unflatten(0, (-1, len(query))).transpose(0, 1)
        for x, by_sample, *_ in (key, value)
    )
    through = torch.bmm(query[:, :, 0].transpose(0, 1), key[2].mT).transpose(0, 1)  # [n, h, d]
    share = (torch.bmm(through, x.mT) * (scale or query.shape[-1] ** -0.5)).softmax(-1)
    mean = torch.bmm(share, y).transpose(0, 1)  # [h, n, d]
    return (torch.bmm(mean, value[2]).transpose(0, 1) + value[3])[:, :, None]


def _linear_map(part: fx.GraphModule, end: Any) -> Map | None:
    """Return the map of which ``[n, h, t, e]`` is the result; labels tell where each element comes from."""
    node = end
    while name_of(node) in MOVES or (name_of(node) == "add" and getattr(node.args[1], "op", "") == "get_attr"):
        node = node.args[0]
    if name_of(node) not in ("mm", "addmm") or node.args[-1].op != "get_attr" or node.kwargs:
        return None
    weight, moved = attribute(part, node.args[-1].target), piece(part, list(part.graph.nodes), [node], end, 2)
    zeros, width = weight.new_zeros(shape_of(node, 2)), weight.shape[1]
    order = torch.arange(zeros.numel(), device=weight.device)
    bias = moved(zeros)
    label = (moved(order.double().reshape(zeros.shape)) - bias).round().long()
    rows, columns = label[:, 0, :, 0] // width, label[0, :, 0] % width
    orders = [order[: rows.numel()].reshape(rows.mT.shape).mT, order[: rows.numel()].reshape(rows.shape)]
    is_map = torch.equal(label, rows[:, None, :, None] * width + columns[:, None])
    if not is_map or not torch.equal(bias, bias[:1, :, :1].expand_as(bias)) or not any(map(rows.equal, orders)):
        return None
    own = attribute(part, node.args[0].target).expand(width)[columns] if name_of(node) == "addmm" else 0
    return node.args[-2], rows.equal(orders[1]), weight[:, columns].movedim(0, 1), bias[0, :, 0] + own
