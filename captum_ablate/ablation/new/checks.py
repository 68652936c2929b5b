"""Compare the outputs of two passes, and tell which graphs must run as they were captured."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from captum_ablate.ablation.agreement import TOLERANCE, difference, equal, is_finite
from captum_ablate.ablation.metric_table import sample_rows as rows_of
from captum_ablate.ablation.new.graph import name_of

__all__ = ["CLOSE", "TOLERANCE", "difference", "equal", "is_finite", "is_precise", "rows_of"]

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
