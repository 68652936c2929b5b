"""Squares, ellipses and hearts drawn in code after the protocol of dSprites, with a horizontal position bias.

The factors are those of dSprites (Matthey et al. 2017): shape, 6 scales, 40 rotations, 32 horizontal and 32 vertical
positions. Outlines, sizes and margins are ours: no file of dSprites is read.

The bias is ``shape_posX_spaced`` of the repository of O'Mahony, Nikolov and O'Sullivan (WACV 2025): the horizontal
position of shape k lies in [0, 0.3), [0.35, 0.65), [0.7, 1] for k = 0, 1, 2. A share b of the images obeys it. The
others stand anywhere, so they obey it by chance in three of ten cases. Unlike there, the number of images is the same
for every b, and no image is drawn twice, not even in two parts.

``python -m benchmarks.papers.omahony.shapes SEED EPOCHS [BIAS ...]`` trains networks of one seed beforehand.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.papers.common.scale import Scale
from benchmarks.papers.common.training import Trained, accuracy, fit_classifier, trained

SHAPES = ("square", "ellipse", "heart")
SCALES, ROTATIONS, POSITIONS = 6, 40, 32
BANDS = ((0.0, 0.3), (0.35, 0.65), (0.7, 1.01))
"""Horizontal positions of each shape in a biased image; 1.01 puts the last position into the last band."""
MARGIN, RADIUS = 0.2, 0.2
"""As fractions of the width: the place of position 0, and the radius of a shape at scale 1. Nothing is cut off."""
LEARNT, SHORTCUT = 0.80, 0.65
"""Least accuracy on held-out images of the training bias. Without bias a network must have learnt the shapes, under
bias at least the shortcut (at bias 0.5 the position alone tells two images in three)."""
FINE = 64
"""Side in pixels of the binary outline, as in dSprites; smaller images are means over its pixels."""


@dataclass(frozen=True)
class ShapeSet:
    """``images [n, 1, size, size]`` in 0..1, and ``factors [n, 5]``: shape, scale, rotation, horizontal, vertical."""

    images: Tensor
    factors: Tensor

    @property
    def labels(self) -> Tensor:
        """The shape, ``[n]``."""
        return self.factors[:, 0]

    @property
    def positions(self) -> Tensor:
        """Horizontal position, 0..1, ``[n]``."""
        return self.factors[:, 3].double() / (POSITIONS - 1)

    @property
    def thirds(self) -> Tensor:
        """Left, middle or right, ``[n]`` int64: the attribute that the bias ties to the shape."""
        return torch.bucketize(self.positions, torch.tensor([0.325, 0.675]))

    @property
    def conflict(self) -> Tensor:
        """Whether the image contradicts the bias: it lies in another third than that of its shape, ``[n]``."""
        return self.thirds != self.labels


def shape_set(
    n: int, *, bias: float, rng: np.random.Generator, size: int, apart_from: tuple[ShapeSet, ...]
) -> ShapeSet:
    """Return ``n`` images, each shape equally often, of which a share ``bias`` obeys the position bias.

    No image is in any of ``apart_from``.
    """
    x_values = np.linspace(0, 1, POSITIONS)
    allowed = [np.flatnonzero((x_values >= low) & (x_values < high)) for low, high in BANDS]
    taken = {tuple(pose) for part in apart_from for pose in part.factors.tolist()}
    chosen: dict[tuple[int, ...], None] = {}
    while len(chosen) < n:
        shape = len(chosen) % len(SHAPES)
        x = rng.choice(allowed[shape]) if rng.random() < bias else rng.integers(POSITIONS)
        drawn = (shape, rng.integers(SCALES), rng.integers(ROTATIONS), x, rng.integers(POSITIONS))
        pose = tuple(map(int, drawn))
        if pose not in taken:
            chosen.setdefault(pose)
    factors = rng.permutation(np.array(list(chosen)))
    return ShapeSet(torch.from_numpy(draw(factors, size)), torch.from_numpy(factors))


@dataclass(frozen=True)
class ShapeSplit:
    """Disjoint parts: ``train`` and ``held_out`` share the bias, ``evaluate`` has none."""

    train: ShapeSet
    held_out: ShapeSet
    evaluate: ShapeSet


@cache
def shape_split(bias: float, seed: int, scale: Scale = Scale.NORMAL) -> ShapeSplit:
    """Return the parts for one bias and seed: 6,000, 2,000 and 3,000 images of 32 pixels at normal scale."""
    size = scale.pick(32, 32, 64)
    rng = np.random.default_rng(seed)
    evaluate = shape_set(scale.pick(300, 3_000), bias=0.0, rng=rng, size=size, apart_from=())
    train = shape_set(scale.pick(600, 6_000, 20_000), bias=bias, rng=rng, size=size, apart_from=(evaluate,))
    held_out = shape_set(scale.pick(300, 2_000), bias=bias, rng=rng, size=size, apart_from=(evaluate, train))
    return ShapeSplit(train, held_out, evaluate)


def shape_network(bias: float, seed: int, scale: Scale = Scale.NORMAL, *, epochs: int | None = None) -> Trained:
    """Return the network trained under ``bias`` and its accuracy on held-out images of the same bias."""
    size, dropout = scale.pick(32, 32, 64), 0.2
    epochs = epochs_of(scale) if epochs is None else epochs

    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return ShapeNetwork(size, dropout)

    def fit(network: nn.Module) -> None:
        train = shape_split(bias, seed, scale).train
        fit_classifier(
            network, train.images, train.labels, epochs=epochs, seed=seed, batch=100, max_lr=3e-3, show_progress=False
        )

    def held_out(network: nn.Module) -> float:
        part = shape_split(bias, seed, scale).held_out
        return accuracy(network, part.images, part.labels)

    n = scale.pick(600, 6_000, 20_000)
    key = f"shapes{size}-{n}images-bias{bias}-{epochs}epochs-seed{seed}"
    return trained(key, make, fit, evaluate=held_out, floor=scale.pick(0.0, SHORTCUT if bias else LEARNT))


def epochs_of(scale: Scale) -> int:
    """Return the number of epochs, the same for every bias; at full scale the 80 of the authors' notebook."""
    return scale.pick(2, 40, 80)


def biases(scale: Scale) -> tuple[float, ...]:
    """Return the shares of biased training images; at full scale the eleven of the paper and 0.95."""
    return scale.pick((0.0, 0.5, 0.9, 1.0), (0.0, 0.5, 0.8, 0.9, 0.95, 1.0), (*(k / 10 for k in range(10)), 0.95, 1.0))


def draw(factors: NDArray[np.int64], size: int) -> NDArray[np.float32]:
    """Return images ``[n, 1, size, size]`` for ``factors [n, 5]``: shape, scale, rotation, horizontal, vertical."""
    if FINE % size:
        raise ValueError(f"size must divide {FINE}; got {size}")
    images, block = np.empty((len(factors), 1, size, size), dtype=np.float32), FINE // size
    for k, inside in enumerate((_square, _ellipse, _heart)):
        members = np.flatnonzero(factors[:, 0] == k)
        for part in np.array_split(members, -(-len(members) // 250)) if len(members) else ():
            fine = inside(*_own_axes(factors[part]))
            images[part] = fine.reshape(-1, 1, size, block, size, block).mean(axis=(3, 5), dtype=np.float32)
    return images


def _own_axes(factors: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the place of each pixel along both axes of its shape, in radii, two arrays ``[n, FINE, FINE]``."""
    _, scale, rotation, x, y = factors.T
    pixels = (np.arange(FINE) + 0.5) / FINE
    centre_x, centre_y = (MARGIN + (1 - 2 * MARGIN) * at / (POSITIONS - 1) for at in (x, y))
    radius, angle = RADIUS * np.linspace(0.5, 1, SCALES)[scale], 2 * np.pi * rotation / ROTATIONS
    dx, dy = (pixels - centre_x[:, None]) / radius[:, None], (centre_y[:, None] - pixels) / radius[:, None]
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    across = [(weight * dx).astype(np.float32)[:, None, :] for weight in (cos, -sin)]
    up = [(weight * dy).astype(np.float32)[:, :, None] for weight in (sin, cos)]
    return across[0] + up[0], across[1] + up[1]


def _square(u: NDArray[np.float32], v: NDArray[np.float32]) -> NDArray[np.bool_]:
    return (abs(u) < 0.7) & (abs(v) < 0.7)


def _ellipse(u: NDArray[np.float32], v: NDArray[np.float32]) -> NDArray[np.bool_]:
    v = v / np.float32(0.55)
    return u * u + v * v < 1


def _heart(u: NDArray[np.float32], v: NDArray[np.float32]) -> NDArray[np.bool_]:
    u, v = np.float32(1.2) * u, np.float32(1.2) * v
    squared = u * u
    ring = squared + v * v - 1
    return ring * ring * ring < squared * v * v * v  # powers of floats are slow


class ShapeNetwork(nn.Module):
    """The LeNet-like encoder of the authors' repository: 84 features and a linear classifier."""

    def __init__(self, size: int = 32, dropout: float = 0.2) -> None:
        super().__init__()

        def convolution(before: int, after: int) -> list[nn.Module]:
            return [
                nn.Conv2d(before, after, kernel_size=5),
                nn.ReLU(),
                nn.AvgPool2d(2),
                nn.Dropout(dropout),
                nn.BatchNorm2d(after, affine=False),
            ]

        def dense(before: int, after: int) -> list[nn.Module]:
            return [
                nn.Linear(before, after),
                nn.ReLU(),
                nn.Dropout(dropout),
                nn.BatchNorm1d(after, affine=False),
            ]

        side = ((size - 4) // 2 - 4) // 2
        self.features = nn.Sequential(
            *convolution(1, 6),
            *convolution(6, 16),
            nn.Flatten(),
            *dense(16 * side**2, 120),
            *dense(120, 84),
            *dense(84, 84),
        )
        self.classifier = nn.Linear(84, len(SHAPES))

    def forward(self, images: Tensor) -> Tensor:
        """Return ``logits [n, 3]`` of ``images [n, 1, size, size]``."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


if __name__ == "__main__":
    for share in [float(b) for b in sys.argv[3:]] or biases(Scale.NORMAL):
        result = shape_network(share, int(sys.argv[1]), epochs=int(sys.argv[2]))
        print(f"bias {share}, seed {sys.argv[1]}: {result.accuracy:.3f} in {result.seconds:.0f} s", flush=True)
