"""Synthetic codes with a known spectrum, and a channel with a known capacity."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.float64]


def gaussian(alpha: float, *, units: int = 200, n: int = 5_000, seed: int = 0) -> Tensor:
    """Return Gaussian samples ``[n, units]`` in a random rotation, with eigenvalues i^-alpha."""
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(units, units, generator=generator, dtype=torch.float64)).Q
    scale = torch.arange(1, units + 1, dtype=torch.float64) ** (-alpha / 2)
    return (torch.randn(n, units, generator=generator, dtype=torch.float64) * scale) @ rotation


class Fourier(nn.Module):
    """A code of angles ``[n, 1]``: cosine and sine of frequency k have variance k^-alpha."""

    def __init__(self, alpha: float, frequencies: int = 1_000) -> None:
        super().__init__()
        self.k = torch.arange(1, frequencies + 1, dtype=torch.float64)
        self.amplitude = self.k ** (-alpha / 2)
        self.code = nn.Identity()

    def forward(self, angle: Tensor) -> Tensor:
        wave = angle * self.k
        code: Tensor = self.code(torch.cat([self.amplitude * wave.cos(), self.amplitude * wave.sin()], dim=1))
        return code


def circle(frames: int) -> Tensor:
    """Return ``frames`` angles once around the circle, ``[frames, 1]``."""
    return 2 * torch.pi * torch.arange(frames, dtype=torch.float64)[:, None] / frames


def noise(frames: int) -> Tensor:
    """Return an independent code for each frame, ``[frames, 50]``."""
    return torch.randn(frames, 50, generator=torch.Generator().manual_seed(frames), dtype=torch.float64)


def dropping(bits: int, dropout: float) -> Floats:
    """Return the channel ``[symbols, symbols]`` that turns each of 2^bits symbols into 0 with chance ``dropout``."""
    channel = (1 - dropout) * np.eye(2**bits)
    channel[:, 0] += dropout
    return channel


def capacity(channel: Floats, rounds: int = 5_000) -> float:
    """Return the capacity in bits of ``channel [inputs, outputs]`` (Blahut 1972, Arimoto 1972)."""
    p = np.full(len(channel), 1 / len(channel))
    for _ in range(rounds):
        q = p @ channel
        gain = np.exp2((channel * np.log2(np.where(channel > 0, channel / q, 1))).sum(axis=1))
        p = p * gain / (p @ gain)
    return float(np.log2(p @ gain))
