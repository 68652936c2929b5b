"""Time of all statistics of a layer over that of bare forward passes (``python -m benchmarks.statistics``).

Three loops take turns, pass by pass, within one run: the bare loop ``for x, y in batches: model(x)``, all statistics of
one layer, and all statistics of four layers, each in one shared pass (``attribute_together``). Ratios are medians over
the rounds. Times are CPU seconds of one thread, which other programs disturb least, or wall-clock seconds on another
device. Weights are random and images noise: time does not depend on them. The linear probe counts with its table only;
scikit-learn fits it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchvision
from torch import Tensor, nn

from captum_ablate import (
    LayerClassSelectivity,
    LayerDatasetAttribution,
    LayerEntropy,
    LayerKLSelectivity,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerSelectivityActivity,
    attribute_together,
)
from captum_ablate.statistics.requests import Request, TableRequest
from captum_ablate.statistics.table import ActivationTable

LIMITS = {1: 1.15, 4: 1.30}
"""Most that a pass may cost, as a multiple of the bare pass, by the number of layers."""


class LayerTable(LayerDatasetAttribution):
    """Collects the table of a linear probe, and does not fit the probe."""

    requests: tuple[Request, ...] = (TableRequest(),)

    def score(self, table: ActivationTable) -> Tensor:
        return table.target


STATISTICS: dict[str, Callable[..., LayerDatasetAttribution]] = {
    "mean activity": LayerMeanActivity,
    "class selectivity": LayerClassSelectivity,
    "entropy": LayerEntropy,
    "mutual information": LayerMutualInformation,
    "KL selectivity": LayerKLSelectivity,
    "selectivity x activity": LayerSelectivityActivity,
    "linear probe's table": LayerTable,
}


@dataclass(frozen=True)
class Case:
    """A network with four of its layers; the third is the layer of the first ratio."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    layers: tuple[str, str, str, str]
    images: int
    batch: int
    unit_dim: int = 1


def cnn() -> nn.Module:
    """Return a VGG-like network for 32 px: six convolutions with batch norm."""
    blocks: list[nn.Module] = []
    for before, after in ((3, 64), (64, 128), (128, 256)):
        for channels in (before, after):
            blocks += [nn.Conv2d(channels, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        blocks.append(nn.MaxPool2d(2))
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


def mlp(*widths: int) -> nn.Module:
    """Return a dense network for 28 px digits with hidden layers of ``widths``."""
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise((784, *widths)):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 10))


class SmallViT(nn.Module):
    """A vision transformer for 32 px: 64 patches, width 192, six blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 192, 4, stride=4)
        self.blocks = nn.Sequential(*(_Block(192) for _ in range(6)))
        self.head = nn.Linear(192, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.blocks(self.patches(images).flatten(2).transpose(1, 2))
        logits: Tensor = self.head(tokens.mean(1))
        return logits


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 3, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm1(tokens)
        tokens = tokens + self.attention(normed, normed, normed, need_weights=False)[0]
        result: Tensor = tokens + self.mlp(self.norm2(tokens))
        return result


CASES = (
    Case(
        "ResNet-18, 160 px",
        torchvision.models.resnet18,
        (3, 160, 160),
        ("layer1", "layer2", "layer3", "layer4"),
        64,
        16,
    ),
    Case("CNN, 32 px", cnn, (3, 32, 32), ("2", "9", "12", "19"), 256, 64),
    Case("ViT-like, 32 px", SmallViT, (3, 32, 32), tuple(f"blocks.{k}" for k in (0, 2, 3, 5)), 256, 64, -1),  # type: ignore[arg-type]  # four
    Case("MLP, 4 x 512", lambda: mlp(512, 512, 512, 512), (1, 28, 28), ("2", "4", "6", "8"), 8192, 256),
    Case("MLP, 2 x 100", lambda: mlp(100, 100), (1, 28, 28), ("2", "1", "4", "3"), 16384, 1024),
)


def compare(case: Case, rounds: int, device: torch.device) -> dict[str, object]:
    """Return one row of the table."""
    torch.manual_seed(0)
    model = case.build().eval().to(device)
    x, y = torch.randn(case.images, *case.shape), torch.arange(case.images) % 10
    batches = [(a.to(device), b.to(device)) for a, b in zip(x.split(case.batch), y.split(case.batch), strict=True)]

    def bare() -> None:
        with torch.no_grad():
            for images, _ in batches:
                model(images)

    def shared(*layers: str) -> Callable[[], object]:
        found = {
            f"{name} of {layer}": statistic(model, layer, unit_dim=case.unit_dim)
            for name, statistic in STATISTICS.items()
            for layer in layers
        }
        return lambda: attribute_together(found, batches)

    one, four = shared(case.layers[2]), shared(*case.layers)
    runs = (bare, one, four)
    for run in runs:
        run()  # to warm up
    times = np.array([[_seconds(run, device) for run in runs] for _ in range(rounds)])
    ratios = np.median(times[:, 1:] / times[:, :1], axis=0)
    return {
        "network": case.name,
        "images": case.images,
        "batch": case.batch,
        "bare pass, s": float(np.median(times[:, 0])),
        "one layer": float(ratios[0]),
        "four layers": float(ratios[1]),
    }


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="a CSV file to write")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for case in (c for c in CASES if options.only in c.name):
        rows.append(compare(case, options.rounds, torch.device(options.device)))
        print(
            "  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()), flush=True
        )
    table = pd.DataFrame(rows)
    print(f"\nall statistics in one pass, as a multiple of the bare pass; promised: {LIMITS[1]} and {LIMITS[4]}")
    if options.out is not None:
        table.to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
