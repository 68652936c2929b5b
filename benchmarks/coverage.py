"""How often each interval holds the truth, and each test errs, by simulation (``python -m benchmarks.coverage``).

The tables go into ``docs/statistics.md``. Each case draws samples whose true value is known, ``--repeats`` times.
``before`` is the rule that a former version had. ``width`` is the mean width over 2 x 1.96 true standard deviations.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmarks.page import fill
from benchmarks.tables import markdown
from captum_ablate import activation_spectrum, interaction_regression
from captum_ablate.statistics.intervals import Interval, bounded_interval, mean_interval, two_way_interval

PAGE = Path(__file__).parents[1] / "docs" / "statistics.md"
Floats = NDArray[np.float64]
Rule = Callable[[Floats], Interval]

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
    for groups, classes, between in ((14, 10, 1.0), (14, 10, 0.1), (14, 1, 1.0), (8, 10, 1.0)):
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


def spectrum(repeats: int) -> pd.DataFrame:
    """Return the coverage of the exponent of a code with eigenvalues i^-alpha."""
    model, rows = torch.nn.Sequential(torch.nn.Identity()), []
    for units, n, tails in ((64, 640, "normal"), (64, 2560, "normal"), (64, 640, "heavy"), (200, 1000, "normal")):
        for alpha in (0.5, 1.0, 2.0):
            rng, found = np.random.default_rng(0), []
            for k in range(repeats):
                code = rng.standard_normal((n, units))
                code *= np.sqrt(3 / rng.chisquare(5, (n, 1))) if tails == "heavy" else 1.0
                samples = torch.from_numpy(code * np.arange(1, units + 1) ** (-alpha / 2))
                one = activation_spectrum(model, "0", samples, replicates=60, seed=k)
                found.append((one.alpha, one.interval.low <= alpha <= one.interval.high))
            values = np.array(found, dtype=float)
            figures = {"bias": values[:, 0].mean() - alpha, "coverage": values[:, 1].mean()}
            rows.append({"units": units, "samples": n, "tails": tails, "alpha": alpha, **figures})
    return pd.DataFrame(rows)


TABLES: dict[str, tuple[Callable[[int], pd.DataFrame], int]] = {
    "rare": (rare, 2000),
    "means": (means, 4000),
    "regression": (regression, 300),
    "spectrum": (spectrum, 60),
}
"""What makes each table, and how many repeats it takes by default."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the tables and put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=TABLES, nargs="*", default=[*TABLES], help="tables to make")
    parser.add_argument("--repeats", type=int, help="of each case; by default as in the page")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in options.only:
        make, usual = TABLES[name]
        repeats = options.repeats or usual
        text = f"{markdown(make(repeats))}\n\n{repeats:,} repeats of each row."
        options.page.write_text(fill(options.page.read_text(), name, text))
        print(text, flush=True)


if __name__ == "__main__":
    main()
