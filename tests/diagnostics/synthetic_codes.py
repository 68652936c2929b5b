"""Gaussian codes whose spectrum is known, and a network that hands them through."""

from __future__ import annotations

import torch
from torch import nn


def identity():
    return nn.Sequential(nn.Identity(), nn.Identity())


def code(alpha, *, units=200, n=5000, seed=0):
    """Gaussian samples ``[n, units]`` in a random rotation, eigenvalue i being i^-alpha."""
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(units, units, generator=generator, dtype=torch.float64)).Q
    scale = torch.arange(1, units + 1, dtype=torch.float64) ** (-alpha / 2)
    return (torch.randn(n, units, generator=generator, dtype=torch.float64) * scale) @ rotation
