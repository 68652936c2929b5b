"""Compute the outputs in closed form if the suffix is affine in the layer's output: each unit then has a fixed share.

With ``A`` the suffix, a the activation and r the reference, ``A(mask) = A(r) + sum over kept units u of
J_u (a_u - r_u)``. One product yields every unit's share of every output, and a whole curve is a cumulative sum.

Affinity is proven from the operators of the graph, never from numbers. A ReLU after pooled non-negative activations
looks affine under zero ablation, but is not under another reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, fx

from captum_ablate.ablation.graph import argument, name_of, reached_by, samples_first, shape_of
from captum_ablate.ablation.metric_table import Outputs
from captum_ablate.ablation.plan import Plan
from captum_ablate.ablation.separate import BATCH_NORMS

LARGEST = 2**25
"""Most numbers in the Jacobian: 256 MiB in float64. Beyond that, the suffix uses less memory."""

LINEAR = frozenset(
    """
    view _unsafe_view reshape _reshape_alias permute transpose t squeeze unsqueeze expand select slice split getitem
    split_with_sizes unbind alias detach clone lift_fresh_copy _to_copy cat add sub rsub neg sum mean flip roll
    slice_scatter select_scatter avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d constant_pad_nd
    upsample_nearest2d upsample_bilinear2d zeros_like ones_like full_like new_zeros new_ones new_full
    """.split()  # noqa: SIM905  a list of words reads better
)
"""Operators that are affine in all of their tensors together."""
PRODUCT = {"mul": 0, "mm": 0, "bmm": 0, "addmm": 1, "baddbmm": 1, "convolution": 0}
"""Operators that multiply two tensors, from this argument on. One alone may depend on the layer, and none on inputs."""
MIXED = {"flip": "dims", "roll": "dims", "cat": "dim"}
"""Operators that mix samples along axis 0, with the name of the argument that has the axes."""


def why_not_affine(nodes: Sequence[fx.Node], start: fx.Node, result: fx.Node) -> str | None:
    """Return why ``result [n, classes]`` is not affine in ``start``, with the same map for each sample, or None."""
    if len(shape_of(result)) != 2 or not samples_first(result):
        return "the outputs are not [n, classes]"
    after = reached_by([start], nodes)
    if result not in after:
        return "the outputs do not depend on the layer"
    for node in nodes:
        if node in after and node is not start and node.op == "call_function" and not _is_affine(node, after):
            return f"{name_of(node) or node.target} is not affine"
    return None


def _is_affine(node: fx.Node, after: set[fx.Node]) -> bool:
    """Tell whether an operator is affine in the nodes ``after`` the layer, for each sample alone and alike."""
    name, value = name_of(node), node.meta["val"]
    values = [value] if isinstance(value, Tensor) else [v for v in value if isinstance(v, Tensor)]
    if any(v.dtype not in (torch.float32, torch.float64) for v in values) or not samples_first(node):
        return False
    if name in MIXED:
        dims = argument(node, MIXED[name])
        ndim = len(shape_of(node))
        return bool(dims != []) and all(d % ndim for d in ([dims] if isinstance(dims, int) else dims))
    if name in LINEAR:
        return True
    if name in PRODUCT:
        factors = node.args[PRODUCT[name] :][:2]
    elif name == "div" and argument(node, "rounding_mode") is None:
        factors = node.args
        if factors[1] in after:
            return False
    elif name in BATCH_NORMS.split() and not argument(node, "training", False):
        factors = node.args[:5]
    else:
        return False
    tensors = [a for a in factors if isinstance(a, fx.Node)]
    return sum(a in after for a in tensors) <= 1 and all(a in after or a.op == "get_attr" for a in tensors)


JOINED = 2**16
"""Numbers of outputs that the metric takes at once: below, the calls cost more than the work."""


def joined(outputs: Iterator[tuple[int, Tensor]]) -> Outputs:
    """Yield the outputs of several masks together, one after the other, as many as make ``JOINED`` numbers."""
    numbers: list[int] = []
    found: list[Tensor] = []
    for number, one in outputs:
        numbers.append(number)
        found.append(one)
        if one.numel() * len(found) >= JOINED:
            yield numbers, torch.cat(found)
            numbers, found = [], []
    if found:
        yield numbers, torch.cat(found)


class ClosedForm:
    """The Jacobian of an affine suffix, ``[outputs, units, positions]`` or ``[outputs, units]`` if positions are alike.

    ``activation`` and ``replaced`` ``[n, ...]`` are the site's value with no unit ablated, and with all. ``ablated``
    are the outputs ``[n, classes]`` with all units ablated.
    """

    def __init__(self, suffix: Callable[[Tensor], Tensor], activation: Tensor, classes: int, owner: Tensor) -> None:
        order = owner.expand(1, *activation.shape[1:]).flatten().argsort(stable=True)
        self._units = 1 + int(owner.max())
        is_in_order = torch.equal(order, torch.arange(len(order), device=order.device))
        self._order = None if is_in_order else order.to(activation.device)
        jacobian = self._by_unit(_jacobian(suffix, activation, classes))
        if bool((jacobian == jacobian[..., :1]).all()):
            jacobian = jacobian[..., 0]  # averaged positions have equal weights
        self.jacobian = jacobian if jacobian.device.type == "mps" else jacobian.double()

    def intact(self, activation: Tensor, replaced: Tensor, ablated: Tensor) -> Tensor:
        """Return the outputs with every unit kept, in closed form."""
        shares = self._shares(activation, replaced)
        return (ablated.to(shares.dtype) + self._product(shares, slice(None))).to(ablated.dtype)

    def outputs(
        self, activation: Tensor, replaced: Tensor, intact: Tensor, ablated: Tensor, plan: Plan
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(number of the mask, outputs [n, classes])`` once for every mask of the plan.

        A sum starts at the all-ablated end. So outputs whose remaining units change nothing are exactly equal.
        """
        shares = self._shares(activation, replaced)
        done: set[int] = set()
        for place, (chain, row) in enumerate(zip(plan.chains, plan.rows, strict=True)):
            if done.issuperset(row):
                continue
            order, whole = plan.order(place, shares.device), plan.ends_fullest(place)
            total = (ablated if whole else intact).to(shares.dtype)
            if whole and len(order) < plan.units:
                total = total + self._product(shares, plan.never_ablated(place, shares.device))
            steps = list(zip(chain.counts, row, strict=True))
            last = len(order) if whole else 0
            for count, number in reversed(steps) if whole else steps:
                group = order[min(count, last) : max(count, last)]
                if len(group):
                    change = self._product(shares, group)
                    total = total + change if whole else total - change
                last = count
                if number not in done:
                    done.add(number)
                    yield number, total.to(intact.dtype)

    def _shares(self, activation: Tensor, replaced: Tensor) -> Tensor:
        """Return activation minus reference, ``[n, units]`` or ``[n, units, positions]``."""
        dtype = self.jacobian.dtype
        change = self._by_unit(activation.to(dtype) - replaced.to(dtype))
        return change.sum(-1) if self.jacobian.ndim == 2 else change

    def _by_unit(self, values: Tensor) -> Tensor:
        """Return ``values [n, ...]`` of the activation's shape as ``[n, units, positions]``."""
        flat = values.flatten(1)
        return (flat if self._order is None else flat[:, self._order]).reshape(len(values), self._units, -1)

    def _product(self, shares: Tensor, group: Tensor | slice) -> Tensor:
        return shares[:, group].flatten(1) @ self.jacobian[:, group].flatten(1).T


def has_equal_units(owner: Tensor, shape: Sequence[int]) -> bool:
    """Tell whether every unit has as many elements of an activation ``[n, ...]`` of this shape."""
    counts = torch.bincount(owner.expand(1, *shape[1:]).flatten())
    return bool((counts == counts[0]).all())


def _jacobian(suffix: Callable[[Tensor], Tensor], activation: Tensor, classes: int) -> Tensor:
    """Return d outputs / d activation, ``[classes, ...]``. Sample i of a backward pass asks for class i."""
    n, rows = len(activation), []
    with torch.enable_grad():
        leaf = activation.clone().requires_grad_()
        outputs = suffix(leaf)
        for start in range(0, classes, n):
            count = min(n, classes - start)
            ask = torch.zeros_like(outputs)
            ask[range(count), range(start, start + count)] = 1
            rows.append(torch.autograd.grad(outputs, leaf, ask, retain_graph=True)[0][:count])
    return torch.cat(rows).detach()
