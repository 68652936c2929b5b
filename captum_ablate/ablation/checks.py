"""Compare the outputs of two passes, and tell which graphs must run as they were captured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves, tree_map

from captum_ablate.ablation.graph import name_of
from captum_ablate.ablation.metrics import class_outputs

TOLERANCE = 1e-5
"""Largest difference of equal outputs, relative to the largest output: kernels round differently by memory format."""
CLOSE = TOLERANCE / 5
"""Largest difference of a way on trial: other masks may round worse, and must stay within ``TOLERANCE``."""

DECIDE = frozenset(
    """
    round floor ceil trunc frac sign heaviside floor_divide remainder fmod gt ge lt le eq ne argmax argmin topk sort
    argsort kthvalue median bucketize searchsorted quantize_per_tensor fake_quantize_per_tensor_affine_cachemask
    """.split()  # noqa: SIM905  a list of words reads better
)
"""Discontinuous operators: a rounding of 1e-7 before them may become a large difference after them."""


def is_precise(nodes: Iterable[fx.Node]) -> bool:
    """Tell whether operators round far below the tolerance: not in half precision, nor where one is discontinuous."""
    wide = (torch.float32, torch.float64)
    values = [v for node in nodes for v in tree_leaves(node.meta.get("val")) if isinstance(v, Tensor)]
    return all(name_of(node) not in DECIDE for node in nodes) and all(
        v.dtype in wide or not v.dtype.is_floating_point for v in values
    )


class Differs(Exception):
    """A way returned other outputs than a full pass, or failed. The message says which."""


@contextmanager
def taking_batch() -> Iterator[None]:
    """Turn an error of a graph's operators into ``Differs``: a size that is none of this batch, or no such kernel."""
    try:
        yield
    except RuntimeError as error:
        raise Differs(f"the graph does not take this batch: {error}".splitlines()[0]) from error


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


def rows_of(outputs: Any, some: slice, n: int) -> Any:
    """Return ``some`` of n samples of every tensor that has a row a sample."""
    return tree_map(lambda x: x[some] if isinstance(x, Tensor) and x.ndim and len(x) == n else x, outputs)
