"""Work on values a block at a time, so that it stays in cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 2**17
"""Values in a block: 1 MiB of float64."""


def blocks(values: Tensor) -> Iterator[slice]:
    """Yield the rows of ``values`` a block at a time."""
    rows = max(1, BLOCK // max(1, values.shape[1]))
    return (slice(start, start + rows) for start in range(0, len(values), rows))


def scratch(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return memory for one block of ``values``, to be used for each block in turn."""
    return torch.empty(min(len(values), max(1, BLOCK // max(1, values.shape[1]))), values.shape[1], dtype=dtype)
