"""Images needed for a precision, and coverage, by simulation (``python -m benchmarks.precision``).

Per-image deletion areas of several shapes are drawn in random order until their mean is known to a half-width. This is
judged by the evaluator's betting confidence sequence, and by Hoeffding's without replacement (Waudby-Smith and Ramdas,
NeurIPS 2020, arXiv 2006.04347). Covered is the share of orders whose interval contains the mean at the stop.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from math import log
from pathlib import Path

import numpy as np
import pandas as pd

from captum_ablate.statistics.confidence_sequence import betting_interval
from captum_ablate.statistics.intervals import Floats

Ends = Callable[[Floats, int, float], tuple[Floats, Floats]]


def populations(size: int, seed: int = 0) -> dict[str, Floats]:
    """Return per-image deletion areas ``[size]``, between -1 and 1, of several shapes."""
    rng = np.random.default_rng(seed)
    right = rng.random(size) < 0.9  # intact accuracy 0.9: a wrong image has an area of 0 or below
    return {
        "early fall: most areas near 0.8": np.where(right, 1 - rng.beta(2, 8, size), -rng.beta(1, 30, size)),
        "half-way: areas around 0.5": np.where(right, rng.beta(5, 5, size), -rng.beta(1, 10, size)),
        "late fall: most areas near 0.1": np.where(right, rng.beta(1, 9, size), 0),
        "all or nothing: area 0 or 1": (rng.random(size) < 0.5).astype(float),
        "redundant layer: nearly all 0": np.where(rng.random(size) < 0.02, 0.3, 0),
    }


def hoeffding(values: Floats, population: int, alpha: float) -> tuple[Floats, Floats]:
    """Return both ends of Hoeffding's confidence sequence without replacement, after running intersection."""
    n = len(values)
    t = np.arange(1, n + 1)[:, None]
    bet = np.minimum(np.sqrt(8 * log(2 / alpha) / (t * np.log(t + 1))), 1)
    before = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(0)[:-1]])
    weight = (bet * (1 + (t - 1) / (population - t + 1))).cumsum(0)
    centre = (bet * (values + before / (population - t + 1))).cumsum(0) / weight
    half = ((bet**2 / 8).cumsum(0) + log(2 / alpha)) / weight
    total = values.sum(0)
    low, high = (centre - half).max(0), (centre + half).min(0)
    return np.maximum(low, total / population), np.minimum(high, 1 - (n - total) / population)


def needed(ends: Ends, drawn: Floats, precision: float, alpha: float, step: int) -> tuple[float, float]:
    """Return the median number of images needed over the orders of areas ``drawn [size, orders]``, and the coverage."""
    size, orders = drawn.shape
    fractions = (drawn + 1) / 2
    few, many = np.zeros(orders, dtype=int), np.full(orders, -(-size // step))  # in steps; the width falls with n
    while (many - few > 1).any():
        middle = (few + many) // 2
        for n in np.unique(middle[many - few > 1]):
            mine = (middle == n) & (many - few > 1)
            low, high = ends(fractions[: n * step, mine], size, alpha)
            known = high - low <= precision
            many[mine], few[mine] = np.where(known, n, many[mine]), np.where(known, few[mine], n)
    stops = np.minimum(many * step, size)
    held = []
    for k, n in enumerate(stops):
        low, high = ends(fractions[:n, [k]], size, alpha)
        held.append(low[0] - 1e-9 <= fractions[:, k].mean() <= high[0] + 1e-9)
    return float(np.median(stops)), float(np.mean(held))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--precision", type=float, nargs="+", default=[0.02, 0.05])
    parser.add_argument("--methods", type=int, default=10)
    parser.add_argument("--orders", type=int, default=40)
    parser.add_argument("--step", type=int, default=50, help="images between looks")
    parser.add_argument("--out", type=Path, help="a CSV file to write")
    options = parser.parse_args(arguments)
    rows = []
    for size in options.images:
        rng = np.random.default_rng(1)
        for name, areas in populations(size).items():
            drawn = np.stack([rng.permutation(areas) for _ in range(options.orders)], axis=1)
            for precision in options.precision:
                alpha = 0.05 / options.methods
                ours, covered = needed(betting_interval, drawn, precision, alpha, options.step)
                theirs, _ = needed(hoeffding, drawn, precision, alpha, options.step)
                rows.append(
                    {
                        "areas": name,
                        "sd": areas.std(),
                        "images": size,
                        "precision": precision,
                        "needed": ours,
                        "Hoeffding": theirs,
                        "covered": covered,
                    }
                )
                print(
                    "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()),
                    flush=True,
                )
    if options.out is not None:
        pd.DataFrame(rows).to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
