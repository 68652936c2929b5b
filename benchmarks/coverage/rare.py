"""Intervals of areas of a bounded metric, by the share of samples that an ablation changes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from benchmarks.coverage.rules import Floats, Rule, covered
from captum_ablate.statistics.intervals import Interval, bounded_interval, mean_interval

SHARES = (0.005, 0.01, 0.02, 0.05, 0.2, 0.5)
"""Share of the samples that an ablation changes."""


def areas(rng: np.random.Generator, n: int, share: float, kind: str) -> Floats:
    """Return the area D_i of each sample, ``[n]``, of which a ``share`` is not 0."""
    sizes = {
        "part": rng.random,
        "all": np.ones,
        "either sign": lambda k: rng.choice([-1.0, 1.0], k) * rng.random(k),
    }[kind](n)
    return np.where(rng.random(n) < share, sizes, 0.0)


def exact_interval(values: Floats, span: float, rng: np.random.Generator, draws: int = 400) -> Interval:
    """Return Gaffke's (2005) bounds of the mean of ``values [n]`` within -span .. span, 2.5 % on each side.

    Each is a quantile of the mean under weights of a Bayesian bootstrap that has seen one value more, at the bound.
    """
    changed = values[values != 0]
    weights = rng.standard_exponential((draws, len(changed) + 1))
    total = weights.sum(axis=1) + rng.standard_gamma(len(values) - len(changed), draws)
    seen = weights[:, :-1] @ changed
    low, high = ((seen + sign * span * weights[:, -1]) / total for sign in (-1, 1))
    return Interval(float(np.quantile(low, 0.025)), float(np.quantile(high, 0.975)))


def rare(repeats: int) -> pd.DataFrame:
    """Return the coverage of areas of accuracy, by the share of samples that change."""
    exact = partial(exact_interval, span=1.0, rng=np.random.default_rng(1))
    rules: dict[str, Rule] = {
        "before (t)": mean_interval,
        "now": partial(bounded_interval, span=1.0),
        "exact": exact,
    }
    rows = []
    for kind, mean, square in (("part", 0.5, 1 / 3), ("all", 1.0, 1.0), ("either sign", 0.0, 1 / 3)):
        for n in (50, 200, 1000):
            for share in SHARES:
                rng = np.random.default_rng(0)
                truth = share * mean
                needed = 3.92 * np.sqrt((share * square - truth**2) / n)
                draw = partial(areas, rng, n, share, kind)
                found = covered(rules, draw, truth, needed, repeats)
                rows.append({"changed lose": kind, "samples": n, "share changed": share, **found})
    return pd.DataFrame(rows)
