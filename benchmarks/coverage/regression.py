"""The regression of groups of units whose rows, one for each class, are not independent."""

from __future__ import annotations

import numpy as np
import pandas as pd

from captum_ablate import interaction_regression

CASES = ((14, 10, 1.0), (14, 10, 0.1), (14, 1, 1.0), (8, 10, 1.0), (40, 10, 1.0), (120, 10, 1.0))
"""Groups, classes, and the standard deviation between groups."""


def groups_in_classes(rng: np.random.Generator, groups: int, classes: int, between: float) -> pd.DataFrame:
    """Return the frame of groups of units without a product, a row per class, each group with an effect of its own."""
    s, a = rng.normal(size=(2, groups))
    size = rng.integers(3, 30, groups)
    effect = 0.1 * s + 0.2 * a + between * rng.normal(size=groups)
    group, label = np.divmod(np.arange(groups * classes), classes)
    columns = {"selectivity": s[group], "mean_activity": a[group], "n_units": size[group]}
    excess = effect[group] + 0.5 * rng.normal(size=groups * classes)
    return pd.DataFrame({"class": label, "group": group, **columns, "excess": excess})


def regression(repeats: int) -> pd.DataFrame:
    """Return the share of false alarms at 5 %, and the coverage of the product, of regressions of groups."""
    rows = []
    for groups, classes, between in (
        (14, 10, 1.0),
        (14, 10, 0.1),
        (14, 1, 1.0),
        (8, 10, 1.0),
        (40, 10, 1.0),
        (120, 10, 1.0),
    ):
        rng = np.random.default_rng(0)
        false: dict[str, list[bool]] = {"before": [], "now": []}
        inside: dict[str, list[bool]] = {"before": [], "now": []}
        for k in range(repeats):
            frame = groups_in_classes(rng, groups, classes, between)
            for name, own in (("before", ()), ("now", None)):
                found = interaction_regression(frame, groups=own, permutations=199, resamples=199, seed=k)
                false[name].append(found.p <= 0.05)
                inside[name].append(found.product_interval.low <= 0 <= found.product_interval.high)
        row = {"groups": groups, "classes": classes, "sd between groups": between}
        row |= {f"type I error, {name}": float(np.mean(one)) for name, one in false.items()}
        rows.append(row | {f"coverage, {name}": float(np.mean(one)) for name, one in inside.items()})
    return pd.DataFrame(rows)
