"""How often a rule's interval holds a known truth, and how wide it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from captum_ablate.statistics.intervals import Interval

Floats = NDArray[np.float64]
Rule = Callable[[Floats], Interval]


def covered(
    rules: Mapping[str, Rule], draw: Callable[[], Floats], truth: float, needed: float, repeats: int
) -> dict[str, float]:
    """Return each rule's share of intervals that hold ``truth``, and their mean width over ``needed``."""
    found: dict[str, list[tuple[bool, float]]] = {name: [] for name in rules}
    for _ in range(repeats):
        values = draw()
        for name, rule in rules.items():
            low, high = rule(values)
            found[name].append((low <= truth <= high, high - low))
    shares = {name: float(np.mean([inside for inside, _ in one])) for name, one in found.items()}
    widths = {f"{name}: width": float(np.mean([width for _, width in one])) / needed for name, one in found.items()}
    return {
        key: value
        for name in rules
        for key, value in ((name, shares[name]), (f"{name}: width", widths[f"{name}: width"]))
    }
