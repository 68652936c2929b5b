"""Differences of two gaps and rank ranges of several methods, over samples and over networks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from benchmarks.coverage.rules import Floats
from captum_ablate.evaluation.across_networks import AcrossNetworks
from captum_ablate.evaluation.pairs import Pairs
from captum_ablate.statistics.intervals import over_networks

Draw = Callable[[np.random.Generator, int], Floats]

DIFFERENCES: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, n: rng.normal(0.1, 0.3, n), 0.1),
    "20 % change, one sign": (lambda rng, n: (rng.random(n) < 0.2) * rng.random(n), 0.1),
    "5 % change, one sign": (lambda rng, n: (rng.random(n) < 0.05) * rng.random(n), 0.025),
    "1 % change, one sign": (lambda rng, n: (rng.random(n) < 0.01) * rng.random(n), 0.005),
    "5 % change, either sign": (lambda rng, n: (rng.random(n) < 0.05) * rng.uniform(-1, 1, n), 0.0),
    "10 % win 0.1, 2 % lose 0.5": (lambda rng, n: rng.choice([0.1, -0.5, 0.0], n, p=[0.1, 0.02, 0.88]), 0.0),
    "20 % win 0.05, 1 % lose 1": (lambda rng, n: rng.choice([0.05, -1.0, 0.0], n, p=[0.2, 0.01, 0.79]), 0.0),
}
"""What each sample adds to the difference of two gaps of accuracy, and its mean."""


def pairs_of(gaps: Floats, span: float | None = None) -> Pairs:
    """Return the pairs of methods with these ``gaps [methods, n]``, whose differences do not exceed ``span``."""
    return Pairs([f"method {k}" for k in range(len(gaps))], gaps, None, span=span)


def differences(repeats: int) -> pd.DataFrame:
    """Return the coverage of ``versus``, and how often its p is at most 0.05: an error where the mean is 0."""
    rows: list[dict[str, object]] = []
    for name, (draw, truth) in DIFFERENCES.items():
        for n in (50, 200, 1000):
            rng = np.random.default_rng(0)
            found: dict[str, list[tuple[bool, bool]]] = {"before (t)": [], "now": []}
            for _ in range(repeats):
                gaps = np.stack([draw(rng, n), np.zeros(n)])
                for rule, span in (("before (t)", None), ("now", 2.0)):
                    one = pairs_of(gaps, span).difference(0, 1)
                    found[rule].append((one.interval.low <= truth <= one.interval.high, one.p_raw <= 0.05))
            row: dict[str, object] = {"difference": name, "samples": n, "mean": truth}
            for k, figure in enumerate(("coverage", "p at most 0.05")):
                row |= {f"{figure}, {rule}": float(np.mean([one[k] for one in kept])) for rule, kept in found.items()}
            rows.append(row)
    return pd.DataFrame(rows)


def ranked(better: np.ndarray, true: Floats) -> tuple[bool, bool]:
    """Tell whether all rank ranges hold the true ranks, and whether ``better`` has a pair that is not so."""
    first, last = 1 + better.sum(axis=0), len(better) - better.sum(axis=1)
    above, level = (true[:, None] > true).sum(axis=0), (true[:, None] == true).sum(axis=0)
    held = (first <= above + level) & (above + 1 <= last)  # a tie may have any of its places
    return bool(held.all()), bool((better & (true[:, None] <= true)).any())


def ranks(repeats: int) -> pd.DataFrame:
    """Return how often rank ranges hold all true ranks, and a method is put above an equal or better one."""
    rows: list[dict[str, object]] = []
    for methods in (3, 15):
        for name, true in (("equal", np.zeros(methods)), ("graded", 0.02 * np.arange(methods))):
            for over, n in (("samples", 50), ("samples", 200), ("networks", 5), ("networks", 20)):
                rng = np.random.default_rng(0)
                found = []
                for _ in range(repeats):
                    common = rng.normal(0, 0.3, n)
                    gaps = true[:, None] + common + rng.standard_gamma(0.5, (methods, n)) / 4 - 0.125  # skewed
                    found.append(ranked(better_of(gaps, over), true))
                held, wrong = np.mean(found, axis=0)
                rows.append(
                    {"over": over, "number": n, "methods": methods, "true gaps": name, "all ranks inside": float(held)}
                    | {"a rank is wrong": float(wrong)}
                )
    return pd.DataFrame(rows)


def better_of(gaps: Floats, over: str) -> np.ndarray:
    """Return which method is told to be above which, from ``gaps [methods, n]`` over samples or networks."""
    return pairs_of(gaps, 4.0).better if over == "samples" else block_of(gaps)._better


def block_of(gaps: Floats) -> AcrossNetworks:
    """Return networks with these ``gaps [methods, networks]`` of one setting."""
    methods, networks = gaps.shape
    places = np.argsort(np.argsort(-gaps, axis=0), axis=0) + 1.0
    results = pd.DataFrame(
        {
            "network": np.tile(np.arange(networks).astype(str), methods),
            "layer": "act1",
            "method": np.repeat([f"method {k}" for k in range(methods)], networks),
            "rank": places.ravel(),
            "gap": gaps.ravel(),
            "is_best": (places == 1).ravel(),
        }
    )
    return AcrossNetworks("zero", "accuracy", results, True, [])


def combined(repeats: int) -> pd.DataFrame:
    """Return the coverage of mean gap, mean rank and a difference over networks."""
    rows: list[dict[str, object]] = []
    for networks in (5, 10, 20):
        for shape in ("normal", "skewed"):
            rng = np.random.default_rng(0)
            true = np.array([0.3, 0.2, 0.2, 0.0])

            def draw(count: int, shape: str = shape, rng: np.random.Generator = rng, true: Floats = true) -> Floats:
                size = (len(true), count)
                noise = rng.normal(0, 0.1, size) if shape == "normal" else (rng.standard_exponential(size) - 1) / 10
                return true[:, None] + noise + rng.normal(0, 0.1, count)

            many = draw(200_000)
            mean_ranks = (np.argsort(np.argsort(-many, axis=0), axis=0) + 1.0).mean(axis=1)
            inside = []
            for _ in range(repeats):
                block = block_of(draw(networks))
                board = block.leaderboard.set_index("method").loc[block.methods]
                one = block.versus("method 0", "method 1").interval
                gap = (board["gap_low"] <= true) & (true <= board["gap_high"])
                rank = (board["mean_rank_low"] <= mean_ranks) & (mean_ranks <= board["mean_rank_high"])
                by_t = np.array([over_networks(ranks) for ranks in block.means("rank")]).clip(1, len(true))
                former = (by_t[:, 0] <= mean_ranks) & (mean_ranks <= by_t[:, 1])
                held = one.low <= 0.1 <= one.high
                inside.append([float(gap.mean()), float(former.mean()), float(rank.mean()), float(held)])
            names = ("mean gap", "mean rank, before (t)", "mean rank", "difference")
            figures = dict(zip(names, np.mean(inside, axis=0).tolist(), strict=True))
            rows.append({"networks": networks, "gaps": shape, **figures})
    return pd.DataFrame(rows)
