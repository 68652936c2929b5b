"""Refuse training modes that change a model's outputs, and warn of random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.model import ForwardFunc
from captum_ablate.inputs.quantised import dequantised
from captum_ablate.inputs.unchanged import has_drawn, modules_of, random_states, unchanged
from captum_ablate.inputs.warnings import warn

CLOSE = 1e-4
"""Largest difference, relative to the largest output: PyTorch rounds otherwise in training mode."""
TRIES = 8
"""Passes of a model that draws random numbers in training mode: a rare effect shows in one of them."""


def refuse_changes_in_training(forward_func: ForwardFunc, layers: Sequence[nn.Module], batch: Batch) -> None:
    """Raise if some module is in training mode, and the model's outputs for ``batch`` differ from evaluation mode.

    In evaluation mode this runs nothing.
    """
    owners = (forward_func, *layers)
    modules = modules_of(owners)
    if not any(module.training for module in modules):
        return
    with unchanged(*owners), torch.no_grad():
        tries = [*_passes(forward_func, batch, 1)]
        states = random_states()
        tries += _passes(forward_func, batch, 1)
        if has_drawn(states):
            tries += _passes(forward_func, batch, TRIES - 2)
        for module in modules:
            with suppress(NotImplementedError):  # exported modules have no other mode
                module.eval()
        evaluated, again = _passes(forward_func, batch, 2)
        if not same(again, evaluated, CLOSE) or all(same(one, evaluated, CLOSE) for one in tries):
            return  # a model that never repeats itself is refused or warned of as such
    raise ValueError(
        "the model is in training mode, in which its outputs are not those of evaluation mode: dropout in its forward "
        "method, or another module that looks at self.training; call model.eval() first"
    )


def warn_of_randomness(forward_func: ForwardFunc, batch: Batch) -> None:
    """Warn if two forward passes on the same batch return different outputs."""
    with torch.no_grad():
        first, second = _passes(forward_func, batch, 2)
    if not same(first, second):
        warn(f"{NO_REPEAT} return different outputs; {ONE_DRAW}")


NO_REPEAT = "the model does not repeat itself: it draws random numbers, and two forward passes on the same batch"
ONE_DRAW = "the result is of one draw, and the evaluator refuses such a model"


def same(one: Sequence[Tensor], other: Sequence[Tensor], within: float = 0.0) -> bool:
    """Tell whether tensors are equal, to ``within`` of the largest number; NaN equals NaN."""
    return len(one) == len(other) and all(_close(a, b, within) for a, b in zip(one, other, strict=True))


def _close(one: Tensor, other: Tensor, within: float) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    one, other = (_plain(t) for t in (one, other))
    if torch.equal(one, other) or not (one.is_floating_point() or one.is_complex()):
        return bool(torch.equal(one, other))
    scale = float(other.abs().nan_to_num(posinf=0.0).max())
    return bool(torch.allclose(one, other, rtol=0.0, atol=within * scale, equal_nan=True))


def _plain(tensor: Tensor) -> Tensor:
    tensor = dequantised(tensor)
    return tensor if tensor.layout is torch.strided else tensor.to_dense()


def _passes(forward_func: ForwardFunc, batch: Batch, number: int) -> list[list[Tensor]]:
    return [_tensors(call(forward_func, batch)) for _ in range(number)]


def _tensors(outputs: Any) -> list[Tensor]:
    """Return the tensors among outputs, also those that an object of another class holds as attributes."""
    leaves = [x for leaf in tree_leaves(outputs) for x in (leaf, *tree_leaves(getattr(leaf, "__dict__", None) or ()))]
    return [leaf.clone() for leaf in leaves if isinstance(leaf, Tensor) and not leaf.is_nested]
