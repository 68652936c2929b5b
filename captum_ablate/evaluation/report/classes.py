"""The gap of each class, in the run's metric: which classes a method finds the units of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from captum_ablate.evaluation.report.heat_maps import HeatMap
from captum_ablate.inputs.targets import as_target
from captum_ablate.inputs.wording import counted

if TYPE_CHECKING:
    from captum_ablate.evaluation.comparison import Comparison

MOST_CLASSES = 30
"""Classes that the map shows, those with the most samples; the file has all."""


def frame(comparison: Comparison) -> pd.DataFrame | None:
    """Return one row per class and method: class, samples, intact, method, gap; None if targets are no classes."""
    curves = list(comparison.curves.values())
    try:
        target = as_target(curves[0].target)
    except ValueError:
        return None
    rows = []
    for label in torch.unique(target).tolist():
        own = target == label
        intact = float(curves[0].values[0][own].mean())
        rows += [
            {
                "class": label,
                "samples": int(own.sum()),
                "intact": intact,
                "method": curve.name,
                "gap": float(curve.gap_areas[own].mean()),
            }
            for curve in curves
        ]
    return pd.DataFrame(rows)


def per_class(comparison: Comparison, names: list[str]) -> tuple[HeatMap, str] | None:
    """Return the map of the gaps of classes, and which classes it leaves out; None if targets are no classes."""
    found = frame(comparison)
    if found is None:
        return None
    once = found.drop_duplicates("class").sort_values("samples", ascending=False, kind="stable")
    shown = sorted(once["class"].head(MOST_CLASSES))
    table = found.pivot(index="method", columns="class", values="gap").loc[names, shown]
    metric = comparison.provenance.metric_words
    heat_map = HeatMap.of(
        table.to_numpy(np.float64),
        names,
        shown,
        f"Gap over the samples of each class, in {metric}",
        corner="class",
        above=(f"intact {metric}", once.set_index("class").loc[shown, "intact"].tolist()),
    )
    more = len(once) - len(shown)
    left_out = f"The {len(shown)} classes with the most samples; classes.csv has {more} more." if more else ""
    return heat_map, f"{counted(len(once), 'class', 'classes')}. {left_out}".strip()
