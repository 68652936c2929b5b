"""The share of a yardstick's gap: samples and permutations of the yardstick both repeat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

from benchmarks.coverage.rules import Floats
from captum_ablate import LayerClassSelectivity, LayerMutualInformation, LayerUnitAblation
from captum_ablate.evaluation.areas import deficit_areas
from captum_ablate.evaluation.yardstick import resampled_means
from captum_ablate.statistics.ranking_noise import RankingNoise, interval_with
from captum_ablate.statistics.ratio import fieller_interval

UNITS, STEPS = 32, 16
POOL = 4000
"""Permutations computed once, from which each yardstick draws its own."""

YARDSTICKS = 100
"""Yardsticks of each number of permutations: their mean gap is the truth."""

PERMUTATIONS = (20, 100)

Metric = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Chained:
    """What each unit adds to the logits of each sample, ``parts [n, units, classes]``, and the label ``y [n]``."""

    parts: Tensor
    intact: Tensor
    y: Tensor
    metric: Metric

    def curve(self, order: Tensor) -> Tensor:
        """Return the metric as units go in this order, ``[units + 1, n]``."""
        gone = torch.cat([torch.zeros_like(self.parts[:, :1]), self.parts[:, order].cumsum(dim=1)], dim=1)
        return self.metric(self.intact[:, None] - gone, self.y).T.to(torch.float64)

    def gap_areas(self, order: Tensor) -> Floats:
        """Return what each sample adds to the gap of an order, ``[n]``."""
        some = torch.linspace(0, UNITS, STEPS + 1).round().long()
        forth, back = (deficit_areas(self.curve(one)[some], some / UNITS) for one in (order, order.flip(0)))
        found: Floats = (forth - back).numpy()
        return found


def share(repeats: int) -> pd.DataFrame:
    """Return the coverage of the share of a yardstick's gap, with and without the noise of its permutations."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    net, (x, y) = _trained()
    rows = []
    for name, metric in METRICS.items():
        ranking, population = _chained(net, x[700:900], y[700:900], metric), _chained(net, x[900:], y[900:], metric)
        by_permutation = _by_permutation(ranking)
        methods = {
            "selectivity": LayerClassSelectivity(net, "1"),
            "mutual information": LayerMutualInformation(net, "1"),
            "unit ablation": LayerUnitAblation(net, "1", metric=name),
        }
        orders = {
            m: one.attribute(x[700:900], target=y[700:900]).argsort(descending=True) for m, one in methods.items()
        }
        gaps = {m: population.gap_areas(order) for m, order in orders.items()}
        for permutations in PERMUTATIONS:
            measures = _yardsticks(by_permutation, population, permutations, rng)
            for n in (100, 400):
                for m, areas in gaps.items():
                    rows.append(
                        {"metric": name, "permutations": permutations, "samples": n, "method": m}
                        | _coverage(areas, measures, n, repeats, rng)
                    )
    return pd.DataFrame(rows)


def _coverage(areas: Floats, measures: Floats, n: int, repeats: int, rng: np.random.Generator) -> dict[str, float]:
    """Return how often intervals hold the share; ``measures [yardsticks, 1 + resamples, population]``."""
    truth = areas.mean() / measures[:, 0].mean()
    hits, known = np.zeros(2), 0
    ratios, widths = [], []
    for _ in range(repeats):
        some = rng.integers(0, len(areas), n)
        own = measures[rng.integers(len(measures))][:, some]
        of_permutations = RankingNoise.of(own[1:])
        noise = np.diag([0.0, of_permutations.variance])
        ratio, interval = fieller_interval(areas[some], own[0], noise, of_permutations.degrees)
        if not (interval.low <= interval.high and interval_with(of_permutations, own[0]).low > 0):
            continue
        without = fieller_interval(areas[some], own[0])[1]
        known += 1
        hits += [one.low <= truth <= one.high for one in (without, interval)]
        ratios.append(ratio)
        widths.append(interval.high - interval.low)
    covered = hits / max(known, 1)
    spread = 3.92 * np.std(ratios)
    return {
        "share": truth,
        "has interval": known / repeats,
        "samples alone": covered[0],
        "now": covered[1],
        "now: width": float(np.median(widths) / spread) if known else np.nan,
    }


def _yardsticks(by_permutation: Tensor, population: Chained, permutations: int, rng: np.random.Generator) -> Floats:
    found = []
    for seed in range(YARDSTICKS):
        own = by_permutation[rng.choice(len(by_permutation), permutations, replace=False)]
        values = [own.mean(dim=0), *resampled_means(own, seed)]
        found.append([population.gap_areas(one.argsort(descending=True)) for one in values])
    return np.array(found)


def _by_permutation(ranking: Chained) -> Tensor:
    """Return the values of each permutation and its reverse together, ``[permutations, units]``."""
    taken = torch.zeros(POOL, UNITS, dtype=torch.float64)
    for k in range(POOL):
        order = torch.randperm(UNITS)
        for one in (order, order.flip(0)):
            curve = ranking.curve(one).mean(dim=1)
            taken[k, one] += (curve[:-1] - curve[1:]) / 2
    return taken


def _chained(net: nn.Sequential, x: Tensor, y: Tensor, metric: Metric) -> Chained:
    with torch.no_grad():
        parts = net[:2](x)[:, :, None] * net[2].weight.T
        return Chained(parts, net(x), y, metric)


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the accuracy ``[n, steps]`` of ``logits [n, steps, classes]``."""
    return (logits.argmax(dim=-1) == y[:, None]).float()


def log_likelihood(logits: Tensor, y: Tensor) -> Tensor:
    """Return the log-likelihood ``[n, steps]`` of ``logits [n, steps, classes]``."""
    index = y[:, None, None].expand(*logits.shape[:2], 1)
    return logits.log_softmax(dim=-1).gather(2, index)[..., 0]


METRICS: dict[str, Metric] = {"accuracy": accuracy, "log_likelihood": log_likelihood}


def _trained() -> tuple[nn.Sequential, tuple[Tensor, Tensor]]:
    """Return a network 64-32-10 trained on 700 digits, and all digits."""
    digits = load_digits()
    order: NDArray[np.int64] = np.random.default_rng(0).permutation(len(digits.target))
    x, y = torch.tensor(digits.data[order] / 16, dtype=torch.float32), torch.tensor(digits.target[order])
    net = nn.Sequential(nn.Linear(64, UNITS), nn.ReLU(), nn.Linear(UNITS, 10))
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x[:700]), y[:700]).backward()
        optimiser.step()
    return net.eval().requires_grad_(False), (x, y)
