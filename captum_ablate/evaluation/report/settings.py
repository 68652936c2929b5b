"""Ties, dead units, cost, settings and provenance of a comparison, as tables and pairs of words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from captum_ablate.evaluation.report.tables import Table
from captum_ablate.inputs.wording import counted, visible

if TYPE_CHECKING:
    from captum_ablate.evaluation.comparison import Comparison
    from captum_ablate.evaluation.provenance import Provenance

Pairs = list[tuple[str, str]]
"""Words and what they stand for."""

UNKNOWN = "not known"


def sections(comparison: Comparison) -> dict[str, Any]:
    """Return what the template needs for these sections, by its names."""
    about = comparison.provenance
    return {
        "units": _units(comparison),
        "ties": _ties(comparison),
        "cost": _cost(comparison),
        "engine": about.engine,
        "settings": _settings(comparison),
        "provenance": _provenance(about),
        "kinds": _kinds(about),
    }


def _units(comparison: Comparison) -> str:
    """Return how many units there are, and how many of them are dead."""
    about = comparison.provenance
    live = len(next(iter(comparison.curves.values())).order)
    if not about.dead:
        return f"{counted(about.units, 'unit')}, {live:,} of them in the orders; none is dead."
    woken = f" {about.woken:,} of these are live in the evaluation data." if about.woken else ""
    return (
        f"{counted(about.units, 'unit')}, {live:,} of them in the orders. {about.dead:,} never differ from the "
        f"reference in the ranking data: they are dead, and left out of all orders.{woken}"
    )


def _ties(comparison: Comparison) -> Table | None:
    """Return the methods with ties: units whose score another live unit has, too."""
    board = comparison.leaderboard[["method", "ties"]]
    tied = board[board["ties"] > 0].reset_index(drop=True)
    caption = "Ties: live units less different scores; their order is random"
    return Table.of(tied, caption) if len(tied) else None


def _cost(comparison: Comparison) -> Table | None:
    """Return the seconds of each method's ranking, the dearest first, and of all; None if they are not known."""
    about = comparison.provenance
    seconds = dict(sorted(about.ranking_seconds.items(), key=lambda one: -one[1]))
    if not seconds and np.isnan(about.seconds):
        return None
    rows = [{"part": f"ranking: {name}", "seconds": value} for name, value in seconds.items()]
    rows.append({"part": "all, with ablation", "seconds": about.seconds})
    return Table.of(pd.DataFrame(rows), "Wall-clock seconds; methods that share a pass over the data share its time")


def _settings(comparison: Comparison) -> Pairs:
    about, curve = comparison.provenance, next(iter(comparison.curves.values()))
    return [
        ("layers", ", ".join(f"{visible(name)}: {counted(n, 'unit')}" for name, n in about.layers.items())),
        ("reference", visible(about.reference)),
        ("metric", f"{about.metric_words}; {about.intact:.4f} of the intact network"),
        ("steps", f"{len(curve.n_ablated) - 1}: {_counts(curve.n_ablated.tolist()[1:])} units ablated"),
        ("random orders", f"{about.n_random:,}, each with its reverse"),
        ("seed", f"{about.seed}: of random orders, ties and donors"),
        ("evaluated", _evaluated(about)),
        ("ranked on", UNKNOWN if about.ranking_n is None else counted(about.ranking_n, "sample")),
        ("evaluated samples that were ranked on", _overlap(about)),
        ("rankings on resamples", f"{about.ranking_resamples:,}" if about.ranking_resamples else "none"),
    ]


def _counts(counts: list[int]) -> str:
    return ", ".join(map(str, counts)) if len(counts) <= 30 else f"{counts[0]}, {counts[1]}, ..., {counts[-1]}"


def _evaluated(about: Provenance) -> str:
    if about.sampled is None:
        return counted(about.n, "sample")
    drawn = about.sampled
    return (
        f"{about.n:,} of {counted(drawn.population, 'sample')}, drawn at random until each deletion was known to "
        f"\N{PLUS-MINUS SIGN}{drawn.half_width:g}"
    )


def _overlap(about: Provenance) -> str:
    if about.in_sample:
        return "all: in-sample"
    return UNKNOWN if about.overlap is None else f"{about.overlap:,}"


def _provenance(about: Provenance) -> Pairs:
    digests = {
        "weights": about.weights,
        "ranking data": about.ranking_digest,
        "evaluation data": about.evaluation_digest,
    }
    found = [(name, version) for name, version in about.versions.items()]
    found += [(f"digest of the {name}", value or UNKNOWN) for name, value in digests.items()]
    return [*found, ("schema version", str(about.schema_version))]


def _kinds(about: Provenance) -> Table | None:
    """Return what each method is, and the reference that it ablates by where that is its own; None if not known."""
    if not about.methods:
        return None
    rows = [{"method": name, "is": kind} for name, kind in about.methods.items()]
    frame = pd.DataFrame(rows)
    if about.own_references:
        frame["reference"] = [about.own_references.get(name, "") for name in about.methods]
    return Table.of(frame, "What each method is")
