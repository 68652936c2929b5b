"""Real numbers that a user hands over, and how much of their spread is rounding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_ablate.inputs.values import tensor_of


def as_real(values: Any, name: str) -> Tensor:
    """Return ``values``, in any container, as float64 on the CPU.

    Raises:
        TypeError: if they are not numbers.
        ValueError: if they are complex.
    """
    tensor = tensor_of(values, name).cpu()
    refuse_complex(tensor, name)
    return tensor.to(torch.float64)


def refuse_complex(values: Tensor, name: str) -> None:
    """Raise if ``values``, called ``name`` in the message, are complex."""
    if values.is_complex():
        raise ValueError(
            f"{name} must be real; got {values.dtype}, which has neither an order nor a sign: pass .abs(), or real "
            "and imaginary part as numbers of their own (torch.view_as_real)"
        )


def rounding(dtype: torch.dtype) -> float:
    """Return the standard deviation, relative to the largest value, up to which values differ by rounding alone.

    A constant that a network computes differs from sample to sample by what its sums round. Half precision sums in
    float32, and rounds the result once.
    """
    sums = torch.float64 if dtype == torch.float64 or not dtype.is_floating_point else torch.float32
    own = torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
    return max(2 * own, 64 * torch.finfo(sums).eps)
