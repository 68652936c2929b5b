"""Random projections of a trajectory: does a code move smoothly as its stimulus moves along a closed path?

The idea and the squared steps are from the supplement of Marshall and Kirchner (2024, arXiv 2401.17975). The slope over
the number of frames, and its law, are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.spatial.distance import pdist
from torch import Tensor

from captum_ablate.diagnostics import pictures
from captum_ablate.inputs.batch import Batch, as_tuple
from captum_ablate.inputs.batches import as_batches
from captum_ablate.inputs.borrowed import borrowed
from captum_ablate.inputs.model import ForwardFunc, Layer, as_model, find_layer, layer_name
from captum_ablate.inputs.rounding import rounding
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.inputs.values import whole_number
from captum_ablate.inputs.wording import counted, visible
from captum_ablate.statistics.intervals import Interval, mean_interval
from captum_ablate.statistics.pooled import pooled_activations

Path = Callable[[int], Any]
"""``path(T)`` returns ``inputs [T, ...]`` (a Tensor, or a tuple of them), evenly spaced along a closed path."""

FRAMES = (32, 64, 128, 256)
DIMENSIONS = 3
"""A projection has three dimensions, as in the supplement."""


@dataclass(frozen=True, eq=False)
class RandomProjections:
    """The energy of a closed trajectory under random projections, as the number of frames on it grows.

    ``energies [projections, frames]``: sum of squared steps over the total variance of the projected trajectory.
    ``distance_correlation [projections]``: Pearson's r of the distances between inputs and between projected codes, at
    the largest number of frames.
    """

    layer: str
    units: int
    frames: tuple[int, ...]
    energies: Tensor
    distance_correlation: Tensor

    @classmethod
    def of(
        cls,
        layer: str,
        codes: Sequence[Tensor],
        frames: tuple[int, ...],
        distances: Any,
        *,
        projections: int,
        seed: int,
        dtype: torch.dtype = torch.float64,
    ) -> RandomProjections:
        """Project ``codes``, one trajectory ``[T, units]`` for each T of ``frames``.

        ``distances [pairs]`` are those of the inputs at the largest number of frames. ``dtype`` is that of the layer.

        Raises:
            ValueError: if a trajectory does not move.
        """
        largest = frames.index(max(frames))
        energies, correlations = trajectory_energies(codes, distances, largest, projections=projections, seed=seed)
        if not all(_moves(code, rounding(dtype)) for code in codes) or not bool((energies > 0).all()):
            raise ValueError(
                f"the code of {layer!r} does not move along the path, so its trajectory has no energy; choose a path "
                "that the layer sees, or unit_dim=None if positions were averaged away"
            )
        return cls(layer, codes[0].shape[1], frames, energies, correlations)

    @property
    def energy(self) -> Tensor:
        """Mean energy over projections, ``[frames]``."""
        return self.energies.mean(dim=0)

    @property
    def slopes(self) -> Tensor:
        """d log energy / d log frames of each projection, ``[projections]``."""
        x = torch.tensor(self.frames, dtype=torch.float64).log()
        centred = x - x.mean()
        return (self.energies.log() * centred).sum(dim=1) / centred.square().sum()

    @property
    def slope(self) -> float:
        """Mean slope: -1 for a smooth code, 1 for independent codes, clip(2 - alpha, -1, 1) for spectra i^-alpha."""
        return float(self.slopes.mean())

    @property
    def interval(self) -> Interval:
        """95 % interval of ``slope`` over projections; the path itself is one."""
        return mean_interval(self.slopes.numpy())

    def to_frame(self) -> pd.DataFrame:
        """Return one row per number of frames: layer, frames, energy, low, high (5 % and 95 % of the projections)."""
        low, high = torch.quantile(self.energies, torch.tensor([0.05, 0.95], dtype=torch.float64), dim=0)
        return pd.DataFrame(
            {
                "layer": self.layer,
                "frames": self.frames,
                "energy": self.energy.numpy(),
                "low": low.numpy(),
                "high": high.numpy(),
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw energy by number of frames with the fitted slope; return the axes."""
        low, high = self.interval
        return pictures.trajectory(
            self.to_frame(),
            title=f"Trajectory energy of {visible(self.layer)} ({counted(self.units, 'unit')})",
            subtitle=f"slope {self.slope:.2f} [{low:.2f}, {high:.2f}] over "
            f"{counted(len(self.energies), 'random projection')}",
            slope=self.slope,
            ax=ax,
        )

    def __repr__(self) -> str:
        low, high = self.interval
        return (
            f"RandomProjections({self.layer!r}: slope {self.slope:.2f} [{low:.2f}, {high:.2f}] over frames "
            f"{self.frames}, {len(self.energies)} projections of {self.units} units)"
        )


def random_projection_test(
    forward_func: ForwardFunc,
    layer: Layer,
    path: Path,
    *,
    projections: int = 200,
    seed: int = 0,
    frames: Sequence[int] = FRAMES,
    unit_dim: int | None = None,
    layer_mask: Tensor | None = None,
    batch_size: int | None = None,
) -> RandomProjections:
    """Return how the energy of a layer's trajectory along ``path`` grows with its frames, over random projections.

    With activations z_t ``[units]`` of frame t of T and P ``[units, 3]`` of N(0, 1 / units): p_t = z_t P, energy(T) =
    sum over the closed path of |p_(t+1) - p_t|^2 / trace cov(p). The slope is d log energy / d log T over ``frames``. A
    code on a circle with eigenvalues i^-alpha has the slope clip(2 - alpha, -1, 1). It reaches -1 at the threshold of
    smoothness, alpha = 3 = 1 + 2 / d for d = 1. After the supplement of Marshall and Kirchner (2024, arXiv 2401.17975).

    Args:
        path: ``path(T)`` returns ``inputs [T, ...]`` along a closed path. They must be antialiased: jumps of pixels are
            jumps of the code.
        projections: random projections to three dimensions.
        frames: numbers of frames T, two or more.
        unit_dim: axis of the units. None makes every element a unit and keeps positions apart; an average over them
            loses a moving stimulus.

    Raises:
        ValueError: if ``frames``, ``projections`` or the inputs of ``path`` do not fit, or the code does not move.

    Example:
        >>> import torch
        >>> from captum_ablate import dot_on_circle, random_projection_test
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Identity())
        >>> found = random_projection_test(net, "1", dot_on_circle(12, channels=1), projections=10)
        >>> f"{found.slope:.1f}"  # -1: smooth
        '-1.0'
    """
    frames = tuple(int(count) for count in frames)
    if len(frames) < 2 or min(frames) < 3 or len(set(frames)) != len(frames):
        raise ValueError(f"frames must be two or more different numbers of frames, 3 or more each; got {frames}")
    projections = whole_number(projections, "projections", 2, "an int, at least 2 for an interval")
    model = as_model(forward_func)
    module = find_layer(model, layer)
    axis, name = UnitAxis.of(unit_dim, layer_mask), layer_name(model, module)
    codes = []
    with borrowed(model, module):
        for count in frames:
            inputs = as_tuple(path(count))
            _check_inputs(inputs, count)
            batch = Batch(inputs, torch.zeros(count, dtype=torch.int64))
            batches = as_batches(batch, forward_func=model, batch_size=batch_size)
            passes = pooled_activations(model, [module], batches, axis)
            parts = [first for ((first, *_),) in passes]
            codes.append(torch.cat([part.values for part in parts]))
    distances = pdist(_flat(as_tuple(path(max(frames)))))
    return RandomProjections.of(
        name, codes, frames, distances, projections=projections, seed=seed, dtype=parts[0].dtype
    )


def dot_on_circle(
    size: int = 32, *, channels: int = 3, radius: float | None = None, width: float = 2.0, background: float = 0.0
) -> Path:
    """Return a path of images ``[T, channels, size, size]``: a Gaussian dot goes once around a circle.

    Its intensity is computed at its exact place, never rounded to pixels, and rises from ``background`` by 1. After the
    supplement of Marshall and Kirchner (2024, arXiv 2401.17975).

    Args:
        size: height and width of an image, in pixels.
        radius: radius of the circle, in pixels; a third of ``size`` by default.
        width: standard deviation of the dot, in pixels.

    Raises:
        ValueError: if size, radius or width is not above 0.

    Example:
        >>> from captum_ablate import dot_on_circle
        >>> tuple(dot_on_circle(16)(8).shape)
        (8, 3, 16, 16)
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


def trajectory_energies(
    codes: Sequence[Tensor], distances: Any, largest: int, *, projections: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the energies ``[projections, frames]`` of ``codes``, one ``[T, units]`` per number of frames.

    Also return the correlation ``[projections]`` of the inputs' ``distances`` with those of projected
    ``codes[largest]``.
    """
    energies, correlations = [], []
    for projection in random_projections(codes[0].shape[1], projections, seed):
        points = [code @ projection for code in codes]
        energies.append(torch.stack([_energy(p) / p.var(dim=0).sum() for p in points]))
        correlations.append(_correlation(distances, pdist(points[largest].numpy())))
    return torch.stack(energies), torch.tensor(correlations, dtype=torch.float64)


def random_projections(units: int, projections: int, seed: int) -> Any:
    """Yield ``projections`` matrices ``[units, 3]`` of N(0, 1 / units)."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(projections):
        yield torch.randn(units, DIMENSIONS, generator=generator, dtype=torch.float64) / units**0.5


def _moves(code: Tensor, noise: float) -> bool:
    """Tell whether any unit of ``code [T, units]`` varies by more than rounding."""
    return bool((code.std(dim=0) > noise * code.abs().amax(dim=0)).any())


def _energy(points: Tensor) -> Tensor:
    """Return the sum of squared steps around the closed trajectory ``points [T, 3]``."""
    return (points.roll(-1, dims=0) - points).square().sum()


def _correlation(a: Any, b: Any) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")


def _flat(inputs: tuple[Any, ...]) -> Any:
    """Return all inputs of each frame side by side, ``[T, values]``."""
    return torch.cat([part.detach().cpu().to(torch.float64).flatten(1) for part in inputs], dim=1).numpy()


def _check_inputs(inputs: tuple[Any, ...], frames: int) -> None:
    for part in inputs:
        if not isinstance(part, Tensor) or part.ndim < 2 or len(part) != frames:
            got = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
            raise ValueError(f"path({frames}) must return inputs [{frames}, ...], one for each frame; got {got}")
