"""Spread of computed values that is rounding alone, by their type."""

from __future__ import annotations

import torch


def rounding(dtype: torch.dtype) -> float:
    """Return the standard deviation, relative to the largest value, up to which values differ by rounding alone.

    A constant that a network computes differs from sample to sample by what its sums round. Half precision sums in
    float32, and rounds the result once.
    """
    sums = torch.float64 if dtype == torch.float64 or not dtype.is_floating_point else torch.float32
    own = torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
    return max(2 * own, 64 * torch.finfo(sums).eps)
