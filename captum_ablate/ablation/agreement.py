"""Compare the outputs of two forward passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from captum_ablate.ablation.metrics import class_outputs

TOLERANCE = 1e-5
"""Largest difference of equal outputs, relative to the largest output: kernels round differently by memory format."""


def is_finite(*tensors: Tensor) -> bool:
    """Tell whether every number is finite."""
    return all(bool(torch.isfinite(t).all()) for t in tensors)


def equal(a: Any, b: Any, tolerance: float = TOLERANCE, like: Any = None) -> bool:
    """Tell whether two outputs are equal, up to ``tolerance`` of the largest number, also of ``like``. NaN equals NaN.

    ``like`` are outputs of the same network, whose size says what rounding is small where ``a`` and ``b`` are near 0.
    """
    least = max(map(_largest, _tensors(like)), default=0.0)
    pairs = list(zip(_tensors(a), _tensors(b), strict=False))

    def close(x: Tensor, y: Tensor) -> bool:
        largest = max(_largest(y), least)
        return torch.equal(x, y) or torch.allclose(x, y, rtol=tolerance, atol=tolerance * largest, equal_nan=True)

    return len(_tensors(a)) == len(_tensors(b)) and all(
        x.shape == y.shape and x.dtype == y.dtype and close(x, y) for x, y in pairs
    )


def difference(a: Any, b: Any) -> float:
    """Return the largest absolute difference between two outputs, infinite if their shapes differ."""
    pairs = zip(_tensors(a), _tensors(b), strict=False)
    return max(
        (float((x.double() - y.double()).abs().max()) for x, y in pairs if x.shape == y.shape), default=torch.inf
    )


def _largest(x: Tensor) -> float:
    finite = x[torch.isfinite(x)].abs()
    return float(finite.max()) if finite.numel() else 0.0


def _tensors(outputs: Any) -> list[Tensor]:
    logits = class_outputs(outputs)
    return [leaf for leaf in tree_leaves(logits) if isinstance(leaf, Tensor)]
