"""How often a random order counts as better than random orders: type I error of the leaderboard's p.

Each network gets ``ORDERS`` random orders once, evaluated as ``compare`` does, and the gap of each order is kept. Then
one order and R others are drawn of these again and again, and the first is held against the others. Trained networks
are perceptrons on digits and MNIST: the units of the only hidden layer, and those of the first of two, with 200
samples. Planted networks are value functions of the set of ablated units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmarks.coverage.rules import Floats
from benchmarks.papers.common.networks import mlp
from captum_ablate import CumulativeAblationEvaluator
from captum_ablate.ablation.plan import counts_of
from captum_ablate.inputs.samples import Split, load, train
from captum_ablate.statistics.null import against_chance

Bools = NDArray[np.bool_]
Value = Callable[[Bools], Floats]

UNITS = (8, 16, 32, 128, 512)
RANDOM = (5, 10, 20, 50)
ORDERS = 4000
SAMPLES = 200
EPOCHS = {"digits": 20, "mnist": 3}
LEVELS = {"p_raw": (0.05, 0.005), "p_exact": (0.05, 0.01)}


def planted(units: int) -> dict[str, Value]:
    """Return values of masks ``[masks, units]`` (True: ablated), ``[masks]``, by what is planted."""
    share = np.random.default_rng(units).exponential(size=units) ** 3
    share /= share.sum()
    return {
        "one unit": lambda gone: 1.0 - gone[:, 0],
        "graded": lambda gone: 1 - gone @ share,
        "saturated": lambda gone: 1 / (1 + np.exp(-20 * (0.5 - gone @ share))),
        "redundant pair": lambda gone: 1.0 - (gone[:, 0] & gone[:, 1]),
        "needed pair": lambda gone: 1.0 - (gone[:, 0] | gone[:, 1]),
        "suppressor": lambda gone: 1 - gone @ share + gone[:, -1] / 2,
    }


def planted_gaps(value: Value, units: int, orders: int, rng: np.random.Generator, steps: int = 20) -> Floats:
    """Return the gaps of random orders of the units of ``value``, ``[orders]``, by the formula of the evaluator."""
    counts = [0, *counts_of(steps, units)]
    widths = np.diff(counts) / units
    ranks = np.argsort(rng.random((orders, units)), axis=1)

    def areas(places: NDArray[np.int64]) -> Floats:
        curves = np.stack([value(places < count) for count in counts])  # [steps+1, orders]
        found: Floats = curves[0] - widths @ (curves[1:] + curves[:-1]) / 2
        return found

    return areas(ranks) - areas(units - 1 - ranks)


@lru_cache
def split_of(name: str) -> Split:
    """Return the data of the trained networks."""
    return load(name)


def trained_gaps(name: str, hidden: tuple[int, ...], reference: str, orders: int) -> Floats:
    """Return the gaps of random orders of the first hidden layer of a trained perceptron, ``[orders]``."""
    data = split_of(name)
    network = mlp(data.train.images[0].numel(), hidden=hidden)
    train(network, *data.train, epochs=EPOCHS[name], show_progress=False)
    evaluator = CumulativeAblationEvaluator(network, "act1", reference=reference, n_random=orders)
    images, labels = data.evaluate
    of_ranking = (data.rank.images[:SAMPLES], data.rank.labels[:SAMPLES])
    found = evaluator.compare(
        {"any": torch.arange(hidden[0]).float()},
        (images[:SAMPLES], labels[:SAMPLES]),
        ranking_data=of_ranking,
        batch_size=SAMPLES,
    )
    return found.random.gap.numpy()


def networks(units: int, orders: int) -> Iterator[tuple[str, Floats]]:
    """Yield the gaps of random orders of each network with ``units``, with the row it counts in."""
    for reference in ("zero", "mean"):
        for name in EPOCHS:
            for hidden in ((units,), (units, 32)):
                yield f"trained, {reference}", trained_gaps(name, hidden, reference, orders)
    rng = np.random.default_rng(units)
    for value in planted(units).values():
        yield "planted", planted_gaps(value, units, orders, rng)


def errors(gaps: Floats, random: int, draws: int, rng: np.random.Generator) -> dict[str, float]:
    """Return how often one of ``gaps [orders]`` counts as better than ``random`` others, by p and level."""
    sets = len(gaps) // (random + 1)
    drawn = np.concatenate(
        [rng.permutation(gaps)[: sets * (random + 1)].reshape(sets, random + 1) for _ in range(-(-draws // sets))]
    )[:draws]
    found = np.array([against_chance(one[0], one[1:])[1:] for one in drawn])
    return {
        f"{name} at {level:.1%}": float((found[:, k] <= level + 1e-12).mean())
        for k, (name, levels) in enumerate(LEVELS.items())
        for level in levels
    }


def chance(draws: int) -> pd.DataFrame:
    """Return the type I error over networks: its mean, and that of the worst network."""
    rows, rng = [], np.random.default_rng(0)
    for units in UNITS:
        pools = list(networks(units, min(ORDERS, draws)))
        for kind in dict.fromkeys(name for name, _ in pools):
            for random in RANDOM:
                found = pd.DataFrame([errors(gaps, random, draws, rng) for name, gaps in pools if name == kind])
                figures = {
                    f"{name}{of}": float(values)
                    for name in found
                    for of, values in (("", found[name].mean()), (", worst", found[name].max()))
                }
                rows.append({"networks": kind, "units": units, "R": random, **figures})
    return pd.DataFrame(rows)
