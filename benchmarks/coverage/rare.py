"""Intervals of areas of a bounded metric, by the share of samples that an ablation changes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from benchmarks.coverage.rules import Floats, Rule, covered
from captum_ablate.statistics.intervals import bounded_interval, mean_interval

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


def rare(repeats: int) -> pd.DataFrame:
    """Return the coverage of areas of accuracy, by the share of samples that change."""
    rules: dict[str, Rule] = {"before (t)": mean_interval, "now": partial(bounded_interval, span=1.0)}
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
