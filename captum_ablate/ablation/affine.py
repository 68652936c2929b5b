"""Compute the outputs in closed form if the suffix is affine in the layer's output: each unit then has a fixed share.

With ``A`` the suffix, a the activation and r the reference, ``A(mask) = A(r) + sum over kept units u of
J_u (a_u - r_u)``. One product yields every unit's share of every output, and a whole curve is a cumulative sum.

Affinity is proven from the operators that run, never from numbers. A ReLU after pooled non-negative activations looks
affine under zero ablation, but is not under another reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from captum_ablate.ablation.effects import signature_of, storage_of
from captum_ablate.ablation.metrics import class_outputs
from captum_ablate.ablation.plan import Plan
from captum_ablate.ablation.recording import Recording, Taken
from captum_ablate.ablation.slots import CONSTANT, DATA, LAYER
from captum_ablate.inputs.model import ForwardFunc

LARGEST = 2**25
"""Most numbers in the Jacobian: 256 MiB in float64. Beyond that, a replay uses less memory."""

_LINEAR = frozenset(
    """
    view _unsafe_view reshape _reshape_alias permute transpose t squeeze unsqueeze expand select slice narrow split
    split_with_sizes chunk unbind alias detach clone contiguous _to_copy cat stack add sub rsub neg sum mean flip roll
    avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d constant_pad_nd
    upsample_nearest2d upsample_bilinear2d copy_ add_ sub_ neg_ lift_fresh
    """.split()  # noqa: SIM905  a list of words reads better
)
_PRODUCT = {
    **dict.fromkeys(("mul", "mul_", "mm", "bmm", "mv", "dot", "linear"), 0),
    **dict.fromkeys(("addmm", "addmv", "baddbmm"), 1),
    **dict.fromkeys(("convolution", "_convolution", "mkldnn_convolution"), 0),
}
"""Operators that multiply their tensors, from this argument on. Exactly one factor may depend on the layer."""
_BATCH_NORMS = frozenset(
    ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
)


class _Proof(TorchDispatchMode):
    """Follow through a replay what depends on the layer's output; ``reason`` names the first operator not affine."""

    def __init__(self, layer_output: Tensor, constants: Iterable[Tensor]) -> None:
        super().__init__()
        self.reason: str | None = None
        self.level = {storage_of(t): CONSTANT for t in constants}
        self.level[storage_of(layer_output)] = LAYER
        self._alive: list[Any] = []  # a freed tensor's memory must not pass its level on

    def level_of(self, value: Any) -> int:
        """Return the highest level of a value's tensors."""
        return max((self._level_of(t) for t in tree_leaves(value) if isinstance(t, Tensor)), default=CONSTANT)

    def _level_of(self, tensor: Tensor) -> int:
        return self.level.get(storage_of(tensor), DATA)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        level = max((self._level_of(t) for t in tensors), default=CONSTANT)
        if level == LAYER and self.reason is None and not self._is_affine(func, args, kwargs, result):
            self.reason = str(func)
        writes = bool(signature_of(func)[1])
        for out in tree_leaves(result):
            if isinstance(out, Tensor):
                self._alive.append(out)
                known = self.level.get(storage_of(out), CONSTANT) if writes else CONSTANT
                self.level[storage_of(out)] = max(level, known)
        return result

    def _is_affine(self, func: Any, args: Any, kwargs: Any, result: Any) -> bool:
        name = func._schema.name.removeprefix("aten::")
        outs = [out for out in tree_leaves(result) if isinstance(out, Tensor)]
        if not all(out.is_floating_point() for out in outs):
            return False
        if name in _LINEAR:
            return True
        if name in _PRODUCT:
            factors = [a for a in args[_PRODUCT[name] :] if isinstance(a, Tensor)]
            if name in ("convolution", "_convolution", "mkldnn_convolution"):
                factors = factors[:2]
            depends = [self._level_of(f) for f in factors]
            return depends.count(LAYER) <= 1 and all(d in (CONSTANT, LAYER) for d in depends)
        if name in ("div", "div_"):
            divisor = args[1] if len(args) > 1 else kwargs.get("other")
            return kwargs.get("rounding_mode") is None and self.level_of(divisor) == CONSTANT
        if name in _BATCH_NORMS:
            training = args[5] if name != "_native_batch_norm_legit_no_training" else False
            return training is False and self.level_of(args[1:]) == CONSTANT
        return False


class AffineTail:
    """The Jacobian of an affine tail, ``[outputs, units]`` or ``[outputs, units, positions]``."""

    def __init__(self, jacobian: Tensor) -> None:
        self.jacobian = jacobian

    def outputs(
        self, recording: Taken, reference: Tensor, plan: Plan, all_ablated: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield ``(number of the mask, outputs [n, outputs])`` once for every mask of the plan.

        The sum starts at the all-ablated end. So outputs whose remaining units change nothing are exactly equal.
        """
        shares = self._shares(recording.activation, reference, recording)
        intact = class_outputs(recording.outputs)
        assert isinstance(intact, Tensor)
        done: set[int] = set()
        for place, (chain, row) in enumerate(zip(plan.chains, plan.rows, strict=True)):
            if done.issuperset(row):
                continue
            order = plan.order(place, self.jacobian.device)
            whole = plan.ends_fullest(place)
            total = all_ablated.to(self.jacobian.dtype) if whole else intact.to(self.jacobian.dtype)
            if whole and len(order) < plan.units:
                total = total + self._product(shares, plan.never_ablated(place, self.jacobian.device))
            ends = [*reversed(chain.counts)] if whole else list(chain.counts)
            numbers = [*reversed(row)] if whole else list(row)
            last = len(order) if whole else 0
            for end, number in zip(ends, numbers, strict=True):
                group = order[end:last] if whole else order[last:end]
                if len(group):
                    change = self._product(shares, group)
                    total = total + change if whole else total - change
                last = end
                if number not in done:
                    done.add(number)
                    yield number, total.to(intact.dtype)

    def intact(self, recording: Taken, reference: Tensor, all_ablated: Tensor) -> Tensor:
        """Return the outputs with every unit kept, in closed form. They must equal the recorded ones."""
        shares = self._shares(recording.activation, reference, recording)
        units = torch.arange(shares.shape[1], device=shares.device)
        return (all_ablated.to(shares.dtype) + self._product(shares, units)).to(all_ablated.dtype)

    def _shares(self, activation: Tensor, reference: Tensor, recording: Taken) -> Tensor:
        """Return activation minus reference, ``[n, units]`` or ``[n, units, positions]``."""
        dtype = self.jacobian.dtype
        change = _by_unit((activation.to(dtype) - reference.to(dtype)).expand_as(activation), recording)
        return change.sum(-1) if self.jacobian.ndim == 2 else change

    def _product(self, shares: Tensor, group: Tensor) -> Tensor:
        return shares[:, group].flatten(1) @ self.jacobian[:, group].flatten(1).T


def affine_tail(forward_func: ForwardFunc, recording: Recording, reference: Tensor) -> AffineTail | str:
    """Return the Jacobian of the suffix, or the reason why the suffix is not affine."""
    activation, intact = recording.activation, class_outputs(recording.outputs)
    if not isinstance(forward_func, nn.Module) or not isinstance(intact, Tensor) or intact.ndim != 2:
        return "the outputs are not [n, classes]"
    if len(intact) != len(activation) or recording.site.axis.groups is not None:
        return "the rows of the outputs are not the samples, or units are groups"
    if intact.shape[1] * prod(activation.shape[1:]) > LARGEST:
        return "the Jacobian would be too large"
    half = activation.clone()
    half[:, ::2] = reference.expand_as(activation)[:, ::2]
    proof = _Proof(half, [*forward_func.parameters(), *forward_func.buffers()])
    outputs = class_outputs(recording.replay(half, watch=proof))
    if proof.reason is not None:
        return f"{proof.reason} is not affine"
    if proof.level_of(outputs) != LAYER:
        return "operators that were not seen lie between the layer and the outputs"
    try:
        return AffineTail(_jacobian(recording, int(intact.shape[1])))
    except RuntimeError as error:  # for example no gradient through the suffix
        return str(error).splitlines()[0]


def _jacobian(recording: Recording, classes: int) -> Tensor:
    """Return d outputs / d activation. Sample i of a backward pass asks for class i, so one pass serves n classes."""
    n = len(recording.activation)
    rows = []
    with torch.enable_grad():
        leaf = recording.activation.clone().requires_grad_()
        outputs = class_outputs(recording.replay(leaf * 1))
        assert isinstance(outputs, Tensor)
        for start in range(0, classes, n):
            count = min(n, classes - start)
            ask = torch.zeros_like(outputs)
            ask[range(count), range(start, start + count)] = 1
            (gradient,) = torch.autograd.grad(outputs, leaf, ask, retain_graph=True)
            rows.append(_by_unit(gradient[:count], recording))
    jacobian = torch.cat(rows).detach()
    if bool((jacobian == jacobian[..., :1]).all()):
        jacobian = jacobian[..., 0]  # averaged positions have equal weights
    return jacobian if jacobian.device.type == "mps" else jacobian.double()


def _by_unit(values: Tensor, recording: Taken) -> Tensor:
    """Return ``values [n, ...]`` of the layer's shape as ``[n, units, positions]``."""
    kept = recording.site.axis.shape(values.shape)
    unit_dims = [d for d in range(1, values.ndim) if kept[d] != 1]
    others = [d for d in range(1, values.ndim) if kept[d] == 1]
    units = prod(kept)
    return values.permute(0, *unit_dims, *others).reshape(len(values), units, -1)
