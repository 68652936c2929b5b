"""Closed paths of stimuli: a dot that goes around a circle, after the supplement of Marshall and Kirchner (2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_ablate.diagnostics.projection import Path


def dot_on_circle(
    size: int = 32, *, channels: int = 3, radius: float | None = None, width: float = 2.0, background: float = 0.0
) -> Path:
    """Return a path of images ``[T, channels, size, size]``: a Gaussian dot goes once around a circle.

    Its standard deviation is ``width`` pixels, and its intensity is computed at its exact place, never rounded to
    pixels; it rises from ``background`` by 1. ``radius`` is a third of ``size`` by default.
    """
    around = size / 3 if radius is None else radius
    if width <= 0 or around <= 0 or size < 2:
        raise ValueError(f"size, radius and width must be above 0; got {size}, {around}, {width}")

    def path(frames: int) -> Tensor:
        angle = 2 * torch.pi * torch.arange(frames, dtype=torch.float64) / frames
        pixel = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
        x = torch.exp(-((pixel - around * angle.cos()[:, None]) ** 2) / (2 * width**2))  # [frames, size]
        y = torch.exp(-((pixel - around * angle.sin()[:, None]) ** 2) / (2 * width**2))
        dot = background + y[:, :, None] * x[:, None, :]
        return dot[:, None].expand(-1, channels, -1, -1).to(torch.get_default_dtype())

    return path
