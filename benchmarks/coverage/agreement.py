"""Do two scores agree: the interval of their rank correlation over units, and the test of their shared top."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from benchmarks.coverage.rules import Floats
from captum_ablate import rank_agreement

RESAMPLES = 500

Draw = Callable[[np.random.Generator, int], Floats]


def normal(rng: np.random.Generator, units: int, rho: float) -> Floats:
    """Return two scores ``[2, units]`` of correlation ``rho``."""
    one, other = rng.standard_normal((2, units))
    return np.stack([one, rho * one + np.sqrt(1 - rho**2) * other])


def few_strong(rng: np.random.Generator, units: int, noise: float) -> Floats:
    """Return two scores ``[2, units]`` that see the same few strong units, each with noise of its own."""
    return rng.exponential(size=units) ** 3 + noise * rng.standard_normal((2, units))


KINDS: dict[str, Draw] = {
    "unrelated": lambda rng, units: normal(rng, units, 0.0),
    "normal, 0.5": lambda rng, units: normal(rng, units, 0.5),
    "normal, 0.9": lambda rng, units: normal(rng, units, 0.9),
    "few strong units, noisy": lambda rng, units: few_strong(rng, units, 1.0),
    "few strong units, exact": lambda rng, units: few_strong(rng, units, 0.1),
}


def true_rho(draw: Draw) -> float:
    """Return the rank correlation of many units."""
    one, other = (rankdata(scores) for scores in draw(np.random.default_rng(1), 400_000))
    return float(np.corrcoef(one, other)[0, 1])


def agreement(repeats: int) -> pd.DataFrame:
    """Return the coverage of rho, and how often the top sets of unrelated scores count as shared at 5 %."""
    rows = []
    for name, draw in KINDS.items():
        rho = true_rho(draw)
        for units in (16, 64, 256):
            rng = np.random.default_rng(0)
            inside, shared = [], []
            for k in range(repeats):
                found = rank_agreement(*draw(rng, units), top=0.25, resamples=RESAMPLES, seed=k)
                inside.append(found.interval.low <= rho <= found.interval.high)
                shared.append(found.overlap_p <= 0.05)
            error = float(np.mean(shared)) if name == "unrelated" else float("nan")
            row = {"scores": name, "units": units, "rho": round(rho, 3), "coverage": float(np.mean(inside))}
            rows.append(row | {"top set, type I error": error})
    return pd.DataFrame(rows)
