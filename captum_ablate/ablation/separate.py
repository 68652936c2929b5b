"""Move the mask past operators that act on each unit alone. They run once; the result is bit-identical.

With h such operators, ``h(where(mask, reference, activation)) = where(mask', h(reference), h(activation))``.
``mask'`` is ``mask[owner]``: ``owner`` holds the unit of each element of one sample, -1 for none, and broadcasts
against the value. Operators that only move elements run on ``owner`` itself, so no rule for axes is needed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from captum_ablate.ablation.graph import argument, name_of, resized, samples_first, shape_of

BATCH_NORMS = "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm"
"""Names of batch norms."""
Owners = dict[fx.Node, Tensor]
"""The owner ``[1, ...]`` of each value whose units are still apart."""


def separated(nodes: Sequence[fx.Node], start: fx.Node, owner: Tensor, others: Collection[fx.Node] = ()) -> Owners:
    """Return the owner of every value after ``start`` whose units are still apart.

    ``start`` is the value of a site and has the given owner. ``others`` are values that change from mask to mask too,
    such as those of later sites: what they reach is not separated.
    """
    owners, reached = {start: owner.cpu()}, {start, *others}
    for node in nodes:
        inputs = [a for a in node.all_input_nodes if a in reached]
        if not inputs or node in reached:
            continue
        reached.add(node)
        rule = RULES.get(name_of(node))
        if rule is None or not all(a in owners for a in inputs) or not samples_first(node):
            continue
        after = rule(node, owners)
        if after is not None:
            owners[node] = after
    return owners


def frontier(owners: Owners, wanted: Collection[fx.Node]) -> list[fx.Node]:
    """Return the separated values that an operator that is not separated reads, among the ``wanted`` ones."""
    return [
        node
        for node in owners
        if isinstance(node.meta["val"], Tensor)
        and any(user.op == "output" or (user not in owners and user in wanted) for user in node.users)
    ]


def mixed(owner: Tensor, intact: Tensor, replaced: Tensor, masks: Tensor, *, by_row: bool = False) -> Tensor:
    """Return a separated value ``[k n, ...]`` for ``masks [k, units]``; ``by_row``, ``[n, ...]`` for one mask a sample.

    ``intact`` and ``replaced [n, ...]`` are the value with no unit ablated, and with all; ``owner`` is on their device.
    """
    chosen = masks[:, owner[0].clamp(min=0)] & (owner >= 0)  # [k, ...]
    if by_row:
        return torch.where(chosen.repeat_interleave(len(intact) // len(masks), 0), replaced, intact)
    values = [torch.where(one, replaced, intact) for one in chosen]
    return values[0] if len(values) == 1 else torch.cat(values)


def _shrunk(owner: Tensor) -> Tensor:
    """Return ``owner`` with size 1 along every axis on which it does not change."""
    for dim in range(owner.ndim):
        first = owner.narrow(dim, 0, 1)
        if owner.shape[dim] > 1 and bool((owner == first).all()):
            owner = first
    return owner


def _elementwise(node: fx.Node, owners: Owners) -> Tensor | None:
    """Each element depends on one of each input; those that meet must have one owner, or none."""
    ndim = len(shape_of(node))
    result: Tensor | None = None
    for source in node.all_input_nodes:
        if source not in owners:
            continue
        owner = owners[source].reshape((1,) * (ndim - owners[source].ndim) + owners[source].shape)
        if result is None:
            result = owner
        elif bool(((result != owner) & (result >= 0) & (owner >= 0)).any()):
            return None
        else:
            result = torch.maximum(result, owner)
    return result


def _moved(node: fx.Node, owners: Owners) -> Tensor | None:
    """Run the same operator on labels of two samples' elements; None if it mixes samples."""
    step = 2 + max(int(owners[a].max()) for a in node.all_input_nodes if a in owners)

    def labels(arg: fx.Node) -> Tensor:
        """Return 1 + owner, and ``step`` more for the second sample; 0 for constants."""
        shape = shape_of(arg, 2)
        if not samples_first(arg):
            return torch.zeros(shape, dtype=torch.float64)
        one = (1 + owners.get(arg, torch.tensor(-1))).expand(shape_of(arg))
        return torch.cat([one, one + step]).double()  # not all operators run on whole numbers

    args, kwargs = fx.node.map_arg((resized(node.args, 2), node.kwargs), labels)
    first, second = node.target(*args, **kwargs).chunk(2)  # type: ignore[operator]  # it is an operator
    if not bool(((second == first + step) | ((first == 0) & (second == 0))).all()):
        return None
    result = _shrunk(first.long() - 1)
    return result if result.shape[0] == 1 else None


def _padded(node: fx.Node, owners: Owners) -> Tensor | None:
    """Nobody owns what is put around a value."""
    source = _first(node)
    return _shrunk(torch.constant_pad_nd(owners[source].expand(shape_of(source)), argument(node, "pad"), -1))


def _filled(node: fx.Node, owners: Owners) -> Tensor | None:
    """Only the shape of the input counts."""
    return torch.full((1,) * len(shape_of(node)), -1)


def _along(node: fx.Node, owners: Owners, dims: Sequence[int]) -> Tensor | None:
    """Return the owner of the first input if one unit owns all that is mixed along ``dims``, without the samples'."""
    source = _first(node)
    if source not in owners or any(a in owners for a in node.all_input_nodes if a is not source):
        return None
    owner, dims = owners[source], [d % len(shape_of(source)) for d in dims]
    mixes = 0 in dims or any(owner.shape[d] != 1 for d in dims)
    return None if mixes or not first_alone(node) else owner


def first_alone(node: fx.Node) -> bool:
    """Tell whether of several results the first alone is read."""
    single = isinstance(node.meta["val"], Tensor)
    return single or all(u.target is operator.getitem and u.args[1] == 0 for u in node.users)


def _batch_norm(node: fx.Node, owners: Owners) -> Tensor | None:
    return None if argument(node, "training", False) else _along(node, owners, [])


def _reduced(node: fx.Node, owners: Owners) -> Tensor | None:
    dims = _dims(node)
    owner = _along(node, owners, dims) if dims else None
    keeps = len(shape_of(node)) == len(shape_of(_first(node)))
    return owner if owner is None or keeps else owner.squeeze(tuple(dims))


def _spatial(node: fx.Node, owners: Owners) -> Tensor | None:
    ndim = len(shape_of(node))
    return _along(node, owners, range(2, ndim)) if ndim == len(shape_of(_first(node))) else None


def _depthwise(node: fx.Node, owners: Owners) -> Tensor | None:
    """A convolution with as many groups as channels."""
    channels = shape_of(_first(node))[1]
    if argument(node, "transposed") or argument(node, "groups") != channels:
        return None
    owner = _spatial(node, owners)
    return owner if owner is None or owner.shape[1] == 1 else owner.repeat_interleave(shape_of(node)[1] // channels, 1)


def _split(node: fx.Node, owners: Owners) -> Tensor | None:
    """The owner of the whole, which ``_item`` cuts."""
    source = _first(node)
    return None if 0 in _dims(node) else owners[source].expand(shape_of(source))


def _item(node: fx.Node, owners: Owners) -> Tensor | None:
    """One of the values of an operator."""
    several: Any
    several, number = node.args
    if RULES[name_of(several)] is not _split:
        return owners[several]
    return _shrunk(several.target(owners[several], *several.args[1:])[number])


def _first(node: fx.Node) -> fx.Node:
    """Return the first input."""
    return node.args[0]  # type: ignore[return-value]  # it is a node with the operators of the rules


def _dims(node: fx.Node) -> list[int]:
    """Return the argument ``dim``, an axis or several, as axes from 0 on."""
    dims = argument(node, "dim", ())
    return [d % len(shape_of(_first(node))) for d in ([dims] if isinstance(dims, int) else dims)]


Rule = Callable[[fx.Node, Owners], "Tensor | None"]

_NAMES: dict[Rule, str] = {
    _elementwise: """
        relu hardtanh gelu silu sigmoid tanh leaky_relu elu celu hardswish hardsigmoid hardshrink softplus softshrink
        threshold mish abs neg exp log log1p erf sin cos sqrt rsqrt reciprocal square pow sign clone detach alias copy
        lift_fresh_copy clamp clamp_min clamp_max add sub mul div rsub maximum minimum addcmul where masked_fill gt lt
        ge le eq ne logical_and logical_or logical_not isnan nan_to_num round floor ceil trunc _to_copy _prelu_kernel
    """,
    _moved: """
        reshape view _unsafe_view _reshape_alias permute transpose t unsqueeze squeeze slice select expand cat stack
        flip roll repeat slice_scatter select_scatter pixel_shuffle pixel_unshuffle channel_shuffle unfold
        reflection_pad2d replication_pad2d
    """,
    _batch_norm: BATCH_NORMS,
    _spatial: """
        max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
        adaptive_max_pool2d adaptive_max_pool3d upsample_nearest1d upsample_nearest2d upsample_bilinear2d
        upsample_bicubic2d
    """,
    _reduced: "mean sum amax amin",
    _depthwise: "convolution",
    _padded: "constant_pad_nd",
    _filled: "zeros_like ones_like full_like new_zeros new_ones new_full",
    _split: "split split_with_sizes unbind",
    _item: "getitem",
}
ELEMENTWISE = tuple(_NAMES[_elementwise].split())
RULES = {name: rule for rule, names in _NAMES.items() for name in names.split()}
"""The operators that may act on each unit alone, by their names without overload."""
