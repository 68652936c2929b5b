"""Small jobs: time of the plain hook loop over ours, case by case (``python -m benchmarks.small``).

One curve and its reverse on one batch of 64 px images. Such a job must not be slower than the loop. A case falls short
if its ratio is under 0.95 twice: as the median of ``--turns``, and of ``--again`` more.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from benchmarks.cases import Case, both_ways, check_equal
from benchmarks.side_by_side import CACHE, CPU, clock_name, device_name, extremes, geometric_mean, in_turns, keep
from benchmarks.tables import markdown
from captum_ablate import CumulativeAblationEvaluator
from captum_ablate.evaluation.curve import DeficitCurve

SIDE, SHORT = 64, 0.95
LAYERS = (
    ("resnet18", "layer1.0"),
    ("resnet18", "layer3.1"),
    ("resnet18", "layer4.1"),
    ("mobilenet_v2", "features.5"),
    ("vgg11", "features.18"),
    ("efficientnet_b0", "features.4"),
    ("squeezenet1_1", "features.9"),
)
IMAGES, STEPS = (16, 32, 64), (3, 5, 10)
QUICK = {(16, 3), (64, 10)}


@dataclass(frozen=True)
class Job:
    """A curve of ``steps`` steps on one batch of ``images``."""

    case: Case
    images: int
    steps: int

    def __str__(self) -> str:
        return f"{self.case}, {self.size}"

    @property
    def size(self) -> str:
        """The images and steps, in words."""
        return f"{self.images} images, {self.steps} steps"


JOBS = tuple(Job(Case(*layer, side=SIDE), images, steps) for layer, images, steps in product(LAYERS, IMAGES, STEPS))


@contextmanager
def counted_passes(model: nn.Module) -> Iterator[list[int]]:
    """Count how often the model's ``forward`` runs, captures included, without a hook that the engine could see."""
    kind, calls = type(model), [0]
    forward = kind.forward

    def counted(*args: object, **kwargs: object) -> object:
        calls[0] += 1
        return forward(*args, **kwargs)

    kind.forward = counted
    try:
        yield calls
    finally:
        kind.forward = forward


@dataclass(frozen=True)
class Ready:
    """A job that can be timed: both ways of doing it, on one model. Our way keeps nothing from turn to turn."""

    model: nn.Module
    plain: Callable[[], object]
    ours: Callable[[], DeficitCurve]

    @classmethod
    def of(cls, job: Job, device: torch.device) -> Ready:
        """Build the network, run both ways once and check that they agree."""
        model, layer, units, batches = job.case.build(job.images, job.images, device)
        scores = torch.rand(units)

        def ours(metric: str = "accuracy") -> DeficitCurve:
            return CumulativeAblationEvaluator(model, layer, steps=job.steps, n_random=0, metric=metric).evaluate(
                scores, batches
            )

        first = ours("logit")
        plain = partial(both_ways, model, layer, first.order, first.n_ablated, batches, job.case.unit_dim)
        check_equal(plain(), ours().score, first.score)
        return cls(model, plain, ours)

    def row(self, turns: int, again: int, device: torch.device) -> dict[str, object]:
        """Return the figures of a job; one that is short in ``turns`` runs ``again`` times more, which then count."""
        times, _ = in_turns(turns, {"plain": self.plain, "ours": self.ours}, device)
        first = float(np.median(times["plain"] / times["ours"]))
        if first < SHORT and again:
            times, _ = in_turns(again, {"plain": self.plain, "ours": self.ours}, device)
        with counted_passes(self.model) as calls:
            curve = self.ours()
        return {
            "hook loop, s": float(np.median(times["plain"])),
            "ours, s": float(np.median(times["ours"])),
            "ratio": float(np.median(times["plain"] / times["ours"])),
            "first ratio": first,
            "full passes": calls[0],
            "execution": curve.engine,
        }


def run(jobs: Sequence[Job], turns: int, again: int, device: torch.device, out: Path) -> pd.DataFrame:
    """Time each job, print and keep its row when it is done, and return the table."""
    rows: list[dict[str, object]] = []
    setting = f"{device_name(device)}, {clock_name(device)}, median of {turns} turns, of {again} more where short"
    for job in jobs:
        key = {"network": job.case.model, "layer": job.case.layer, "job": job.size}
        rows.append(key | Ready.of(job, device).row(turns, again, device))
        keep([rows[-1] | {"setting": setting}], list(key), out)
        shown = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in rows[-1].items()}
        print("  ".join(f"{k} {v}" for k, v in shown.items()), flush=True)
    table = pd.DataFrame(rows)
    print(f"\n{markdown(table)}\n\n{setting}")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and the verdict; return 1 if a case falls short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--again", type=int, default=15, help="turns more for a case that is short")
    parser.add_argument("--quick", action="store_true", help="the smallest and the largest job of each layer")
    parser.add_argument("--only", default="", help="jobs whose network, layer, images and steps contain this")
    parser.add_argument("--device", type=torch.device, default=CPU, help="cpu or cuda")
    parser.add_argument("--out", type=Path, default=CACHE / "small.csv", help="the CSV file of results")
    options = parser.parse_args(arguments)
    wanted = [job for job in JOBS if not options.quick or (job.images, job.steps) in QUICK]
    jobs = [job for job in wanted if options.only in str(job)]
    if not jobs:
        raise SystemExit(f"no job contains {options.only!r}; the jobs are {'; '.join(map(str, wanted))}")
    table = run(jobs, options.turns, options.again, options.device, options.out)
    ratios = table["ratio"]
    short = table[(table["first ratio"] < SHORT) & (ratios < SHORT)]
    print(f"geometric mean {geometric_mean(ratios):.3g}x, {extremes(ratios)}")
    print(f"{len(short)} of {len(table)} jobs under {SHORT:g}x twice")
    return int(len(short) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
