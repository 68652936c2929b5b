"""Areas of samples that are drawn until a precision: are all means inside at the stop, and are ranks right?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.coverage.rules import Floats
from captum_ablate.evaluation.pairs import Pairs
from captum_ablate.statistics.confidence_sequence import ConfidenceSequence, Sampled, as_fractions

LOT = 16
GROWTH = 0.125
METHODS = 5


def areas(shape: str, size: int, rng: np.random.Generator) -> Floats:
    """Return the areas of ``METHODS`` methods on ``size`` samples, ``[size, METHODS]``; the first two are equal."""
    common = rng.beta(2, 5, (size, 1))
    own = rng.beta(2, 8, (size, METHODS)) + 0.05 * np.arange(METHODS)
    found = {
        "graded": np.clip(common * own * 3, 0, 1),
        "all or nothing": (rng.random((size, METHODS)) < 0.3 + 0.05 * np.arange(METHODS)) * 1.0,
        "few change": (rng.random((size, METHODS)) < 0.01) * common,
    }[shape]
    found[:, 1] = rng.permutation(found[:, 0])
    return found


def stopped(values: Floats, half_width: float, rng: np.random.Generator) -> Floats:
    """Return the ``values [size, methods]`` that are drawn in lots until every mean is known to ``half_width``."""
    drawn, size = rng.permutation(values), len(values)
    sequence, n = ConfidenceSequence.start(values.shape[1], size), 0
    while n < size:
        lot = LOT * int(np.ceil(max(GROWTH * n, 1) / LOT))
        sequence = sequence.extended(as_fractions(drawn[n : n + lot], -1, 1))
        n = sequence.n
        if 2 * sequence.half_width.max() <= half_width:
            break
    return drawn[:n]


def until(repeats: int) -> pd.DataFrame:
    """Return how often all means are inside, and how often a method is put above an equal or better one."""
    rows = []
    for size, half_widths in ((500, (0.2, 0.05, 0.001)), (2000, (0.2, 0.05))):
        for shape in ("graded", "all or nothing", "few change"):
            for half_width in half_widths:
                rng = np.random.default_rng(0)
                values = areas(shape, size, rng)
                means = values.mean(axis=0)
                inside, wrong, used = [], [], []
                for _ in range(repeats):
                    drawn = stopped(values, half_width, rng)
                    sampled = Sampled(half_width, size, METHODS, (0.0, 1.0))
                    ends = np.array([sampled.interval(one) for one in drawn.T])
                    inside.append(bool(((ends[:, 0] <= means) & (means <= ends[:, 1])).all()))
                    better = Pairs([*map(str, range(METHODS))], np.ascontiguousarray(drawn.T), sampled).better
                    wrong.append(bool((better & (means[:, None] <= means + 1e-12)).any()))
                    used.append(len(drawn))
                figures = {"all means inside": float(np.mean(inside)), "a rank is wrong": float(np.mean(wrong))}
                setting = {"areas": shape, "samples": size, "half-width": half_width}
                rows.append({**setting, **figures, "samples drawn": float(np.mean(used))})
    return pd.DataFrame(rows)
