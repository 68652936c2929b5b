"""How often a method that knows nothing but the layer counts as better than random orders over several layers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.coverage.chance import EPOCHS, SAMPLES, split_of
from benchmarks.coverage.rules import Floats
from benchmarks.papers.common.networks import mlp
from captum_ablate import CumulativeAblationEvaluator
from captum_ablate.evaluation.within_layers import orders_within
from captum_ablate.inputs.samples import train
from captum_ablate.statistics.null import against_chance

HIDDEN = ((16, 16), (16, 64), (64, 16))
RANDOM = (5, 20)
ORDERS = 1000
"""Orders of each kind, computed once; each repetition draws from them."""


def within(draws: int) -> pd.DataFrame:
    """Return how often p is below a level, for orders that take one layer first and its units at random."""
    rows, rng = [], np.random.default_rng(0)
    for hidden in HIDDEN:
        for reference in ("zero", "mean"):
            gaps = pools("digits", hidden, reference, ORDERS)
            for random in RANDOM:
                rows.append(
                    {"units": " and ".join(map(str, hidden)), "reference": reference, "R": random}
                    | errors(*gaps, random, draws, rng)
                )
    return pd.DataFrame(rows)


@lru_cache
def pools(name: str, hidden: tuple[int, int], reference: str, orders: int) -> tuple[Floats, Floats, Floats]:
    """Return the gaps ``[orders]`` of random orders, of orders by layer, and of the latter with layers in equal shares.

    Orders by layer take that layer first whose units earn more so.
    """
    data = split_of(name)
    network = mlp(data.train.images[0].numel(), hidden=hidden)
    train(network, *data.train, epochs=EPOCHS[name], show_progress=False)
    evaluator = CumulativeAblationEvaluator(
        network, ["act1", "act2"], reference=reference, n_random=0, live_units_only=False
    )
    rank, evaluated = (tuple(part[:SAMPLES] for part in (one.images, one.labels)) for one in (data.rank, data.evaluate))
    units, stream = sum(hidden), torch.Generator().manual_seed(1)
    layer = torch.repeat_interleave(torch.tensor(hidden))
    drawn = torch.rand(orders, units, generator=stream)

    def gaps(found: Sequence[Tensor]) -> Floats:
        scores = {str(k): -order.argsort().float() for k, order in enumerate(found)}
        comparison = evaluator.compare(scores, evaluated, ranking_data=rank, batch_size=SAMPLES)
        return np.array([curve.gap for curve in comparison.curves.values()])

    random = gaps([*drawn.argsort(dim=1)])
    first = [[*(drawn + sign * layer).argsort(dim=1)] for sign in (-1, 1)]
    by_layer = [gaps(one) for one in first]
    best = int(by_layer[1].mean() > by_layer[0].mean())
    return random, by_layer[best], gaps(orders_within(first[best], hidden, 0, seed=1))


def errors(
    random: Floats, by_layer: Floats, equal: Floats, n_random: int, draws: int, rng: np.random.Generator
) -> dict[str, float]:
    """Return how often p of an order by layer is below a level: against random orders, and within layers."""
    found = []
    for _ in range(draws):
        plain = against_chance(rng.choice(by_layer), rng.choice(random, n_random, replace=False))
        own, *null = rng.choice(equal, n_random + 1, replace=False)
        inside = against_chance(own, np.array(null))
        found.append((plain.p_raw <= 0.05, inside.p_raw <= 0.05, inside.p_raw <= 0.005, inside.p_exact <= 0.05 + 1e-12))
    names = ("random orders: 5.0%", "within: 5.0%", "within: 0.5%", "within, p_exact: 5.0%")
    return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))
