"""Peak memory by images, methods and steps, each case in a process of its own (``python -m benchmarks.memory``).

With ``--paths``: what path methods take at 224 px, by images and samples at a time.

Images are generated batch by batch, so the data take no more than a batch. The table of per-sample values must grow,
and a few copies of it are made at the end; its size is printed next to the peak. All else should stay constant.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import captum.attr
import pandas as pd
import torch
import torchvision
from torch import Tensor, nn

from benchmarks.side_by_side import CACHE, keep
from benchmarks.tables import markdown
from captum_ablate import CumulativeAblationEvaluator, unit_scores

BATCH, SIDE, UNITS, CLASSES = 100, 16, 64, 10
PATHS = (
    ("LayerConductance", 2, "Captum alone"),
    ("LayerConductance", 4, "Captum alone"),
    ("LayerConductance", 64, "unit_scores"),
    ("LayerConductance", 8, "compare"),
    ("LayerIntegratedGradients", 6, "unit_scores"),
)
CASES = ((200, 1, 20), (2_000, 1, 20), (20_000, 1, 20), (200, 8, 20), (200, 1, 64), (200, 8, 64))


@dataclass(frozen=True)
class Noise:
    """Batches of noise, generated anew on each iteration."""

    images: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        stream = torch.Generator().manual_seed(0)
        for _ in range(self.images // BATCH):
            x = torch.randn(BATCH, 3, SIDE, SIDE, generator=stream)
            yield x, torch.randint(CLASSES, (BATCH,), generator=stream)


def network() -> nn.Sequential:
    """Return a small convolutional network; the activations of one batch take 3 MB at the first layers."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, UNITS, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(UNITS, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    ).eval()


def peak_mb() -> float:
    """Return the peak memory of this process, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss also counts the memory of the parent when it started this process
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def one(images: int, methods: int, steps: int) -> None:
    """Evaluate, and print in MB the peak before and after, and the size of the per-sample values."""
    model = network()
    with torch.no_grad():
        model(next(iter(Noise(BATCH)))[0])
    before = peak_mb()
    evaluator = CumulativeAblationEvaluator(model, "3", steps=steps, n_random=0)
    comparison = evaluator.compare({str(k): torch.rand(UNITS) for k in range(methods)}, Noise(images))
    values = 2 * sum(c.values.numel() * c.values.element_size() for c in comparison.curves.values())
    print(before, peak_mb(), values / 1e6)


def one_path(method: str, images: int, entry: str) -> None:
    """Score the channels of ResNet-18's layer3 at 224 px, and print in MB the peak before and after, and seconds."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    x, y = torch.randn(images, 3, 224, 224), torch.arange(images) % 10
    with torch.no_grad():
        model(x)
    before, start = peak_mb(), time.perf_counter()
    attribution = getattr(captum.attr, method)(model, model.layer3)
    if entry == "Captum alone":
        attribution.attribute(x, target=y)
    elif entry == "unit_scores":
        unit_scores(attribution, (x, y))
    else:
        evaluator = CumulativeAblationEvaluator(model, "layer3", steps=2, n_random=0)
        evaluator.compare({method: attribution}, (x, y), batch_size=4)
    print(before, peak_mb(), time.perf_counter() - start)


def paths() -> pd.DataFrame:
    """Return the table of path methods, each case in a process of its own."""
    rows = []
    for case in PATHS:
        command = [sys.executable, "-m", "benchmarks.memory", "--one-path", *map(str, case)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        before, peak, seconds = map(float, done.stdout.split())
        names = ("method", "images", "by")
        figures = {"one plain pass, MB": before, "peak, MB": peak, "seconds": seconds}
        rows.append(dict(zip(names, case, strict=True)) | figures)
        print(rows[-1], flush=True)
    return pd.DataFrame(rows).round(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; with ``--one``, run one case in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=3, type=int, metavar=("IMAGES", "METHODS", "STEPS"))
    parser.add_argument("--paths", action="store_true", help="path methods at 224 px instead")
    parser.add_argument("--one-path", nargs=3, metavar=("METHOD", "IMAGES", "BY"))
    parser.add_argument("--out", type=Path, default=CACHE / "memory.csv", help="the CSV file of results")
    options = parser.parse_args(arguments)
    if options.one:
        one(*options.one)
        return
    if options.one_path:
        method, images, entry = options.one_path
        one_path(method, int(images), entry)
        return
    if options.paths:
        print(f"\n{markdown(paths(), digits=4)}")
        return
    rows = []
    for case in CASES:
        command = [sys.executable, "-m", "benchmarks.memory", "--one", *map(str, case)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        before, peak, values = map(float, done.stdout.split())
        names = ("images", "methods", "steps")
        rows.append(
            dict(zip(names, case, strict=True))
            | {"one plain pass, MB": before, "peak, MB": peak, "per-sample values, MB": values}
        )
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows).round(1)
    keep(rows, ["images", "methods", "steps"], options.out)
    print(f"\n{markdown(table, digits=4)}\n\nbatches of {BATCH} images of {SIDE} px")


if __name__ == "__main__":
    main()
