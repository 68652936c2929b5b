"""Intervals of means of an unbounded metric, and of an excess over random groups."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from benchmarks.coverage.rules import Floats, Rule, covered
from captum_ablate.statistics.intervals import mean_interval, two_way_interval


def means(repeats: int) -> pd.DataFrame:
    """Return the coverage of means of an unbounded metric, and of an excess over random groups."""
    rng = np.random.default_rng(0)

    def table(n: int, orders: int) -> Floats:
        samples, between = rng.standard_normal((n, 1)), 0.3 * rng.standard_normal((1, orders))
        return samples + between + rng.standard_normal((n, orders))

    rows = []
    for n in (20, 200):
        draws: dict[str, tuple[Rule, Callable[[], Floats], float, float]] = {
            "mean, normal": (mean_interval, partial(rng.normal, 1.0, 2.0, n), 1.0, 2 / np.sqrt(n)),
            "mean, exponential": (mean_interval, partial(rng.exponential, 1.0, n), 1.0, 1 / np.sqrt(n)),
            "samples and 20 random groups": (
                two_way_interval,
                partial(table, n, 20),
                0.0,
                np.sqrt(1 / n + 0.09 / 20 + 1 / (20 * n)),
            ),
        }
        for name, (rule, draw, truth, error) in draws.items():
            found = covered({"coverage": rule}, draw, truth, 3.92 * error, repeats)
            rows.append({"what": name, "samples": n, "coverage": found["coverage"], "width": found["coverage: width"]})
    return pd.DataFrame(rows)
