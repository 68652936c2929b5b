"""Gaps of methods: ranking data and evaluation samples are both drawn anew, networks are fixed.

Each repetition draws a ranking set and 200 evaluation samples, with replacement from two halves of images that the
network was not trained on. The truth is the mean gap over repetitions. Another ranking set on the same evaluation
samples tells how often a method is declared different from itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from captum.attr import LayerGradientXActivation
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from captum_ablate import (
    Comparison,
    CumulativeAblationEvaluator,
    LayerClassSelectivity,
    LayerEntropy,
    LayerMutualInformation,
    LayerSelectivityActivity,
    LayerUnitAblation,
    demo_data,
)
from captum_ablate.evaluation import ranked_again
from captum_ablate.evaluation.curve import DeficitCurve
from captum_ablate.evaluation.pairs import difference_span
from captum_ablate.statistics.intervals import Interval, bounded_interval, paired_p

LAYER = "4"
TRAINED, EVALUATED, RESAMPLES, RANDOM = 4000, 200, 20, 20
RANKED = (300, 1000)
DATA = ("mnist", "fashion")


class Pools(NamedTuple):
    """A network, and images that it was not trained on, to rank on and to evaluate on."""

    network: nn.Module
    rank: tuple[Tensor, Tensor]
    evaluate: tuple[Tensor, Tensor]


def pools(name: str) -> Pools:
    """Return a perceptron of 100 and 100 units, trained on 4,000 images (half of a smaller set), and two pools."""
    split = demo_data.load(name, held_out=10_000)
    x = torch.cat([part.images for part in (split.train, split.rank, split.evaluate)]).flatten(1)
    y = torch.cat([part.labels for part in (split.train, split.rank, split.evaluate)])
    trained = min(TRAINED, len(y) // 2)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Identity(), nn.Linear(x.shape[1], 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(8):
        for some in torch.randperm(trained).split(64):
            optimizer.zero_grad()
            cross_entropy(network(x[some]), y[some]).backward()
            optimizer.step()
    rest = trained + torch.randperm(len(y) - trained)
    halves = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    return Pools(network.eval(), *((x[half], y[half]) for half in halves))


def methods(network: nn.Module) -> dict[str, Any]:
    """Return the methods by name."""
    return {
        "class selectivity": LayerClassSelectivity(network, LAYER),
        "mutual information": LayerMutualInformation(network, LAYER),
        "entropy": LayerEntropy(network, LAYER),
        "selectivity x activity": LayerSelectivityActivity(network, LAYER),
        "unit ablation": LayerUnitAblation(network, LAYER),
        "gradient x activation": LayerGradientXActivation(network, network[int(LAYER)]),
    }


class Drawn(NamedTuple):
    """What one repetition says of a method; ``before``: by the intervals and p of its one order."""

    gap: float
    before: Interval
    now: Interval
    different_before: bool
    different_now: bool


def rankings(repeats: int) -> pd.DataFrame:
    """Return the coverage of gaps of methods, by data, method and size of the ranking set."""
    rows = []
    for name in DATA:
        own = pools(name)
        for ranked in RANKED:
            drawn = [one for _, one in zip(tqdm(range(repeats), f"{name} {ranked}"), _draws(own, ranked), strict=False)]
            rows += [_row(name, ranked, method, [one[method] for one in drawn]) for method in drawn[0]]
    frame = pd.DataFrame(rows)
    means = frame.drop(columns=["data", "ranked on", "method"]).mean()
    return pd.concat([frame, pd.DataFrame([{"data": "all", "ranked on": "", "method": "mean", **means}])])


def _draws(own: Pools, ranked: int) -> Iterator[dict[str, Drawn]]:
    rng = np.random.default_rng(0)
    evaluator = CumulativeAblationEvaluator(own.network, LAYER, n_random=0)
    options = {"ranking_resamples": RESAMPLES}
    while True:
        evaluation, *ranking = (
            _some(pool, n, rng) for pool, n in ((own.evaluate, EVALUATED), (own.rank, ranked), (own.rank, ranked))
        )
        with _budget_of_random_orders(len(methods(own.network))):
            one, other = (
                evaluator.compare(methods(own.network), evaluation, ranking_data=data, **options) for data in ranking
            )
        yield {name: _drawn(one, other, name) for name in one}


def _some(pool: tuple[Tensor, Tensor], n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    some = torch.from_numpy(rng.integers(len(pool[1]), size=n))
    return pool[0][some], pool[1][some]


@contextmanager
def _budget_of_random_orders(count: int) -> Iterator[None]:
    """Give resamples the budget of a comparison with random orders, which tell nothing here and are not run."""
    share, ranked_again.SHARE = ranked_again.SHARE, ranked_again.SHARE * (count + RANDOM) / count
    try:
        yield
    finally:
        ranked_again.SHARE = share


def _drawn(one: Comparison, other: Comparison, name: str) -> Drawn:
    curve = one[name]
    apart = (curve.gap_areas - other[name].gap_areas).numpy()
    p_before, p_now = paired_p(apart, difference_span(curve)), one.versus(name, name, of=other).p
    return Drawn(curve.gap, _before(curve), curve.gap_interval, p_before <= 0.05, p_now <= 0.05)


def _before(curve: DeficitCurve) -> Interval:
    return bounded_interval(curve.gap_areas.numpy(), 1.0)


def _row(data: str, ranked: int, method: str, drawn: list[Drawn]) -> Mapping[str, Any]:
    gaps = np.array([one.gap for one in drawn])
    truth, error = gaps.mean(), gaps.std(ddof=1)
    row: dict[str, Any] = {"data": data, "ranked on": ranked, "method": method, "gap": truth, "true sd": error}
    for which in ("before", "now"):
        ends = np.array([getattr(one, which) for one in drawn])
        row[which] = float(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean())
        row[f"{which}: width"] = float((ends[:, 1] - ends[:, 0]).mean() / (3.92 * error))
    for which in ("before", "now"):
        row[f"differs from itself, {which}"] = float(np.mean([getattr(one, f"different_{which}") for one in drawn]))
    return row
