"""The sections of the report on one comparison, from its frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from captum_ablate.evaluation import plots
from captum_ablate.evaluation.claims import BANDS, Headings, footnotes
from captum_ablate.evaluation.curve import GAP_MEANING
from captum_ablate.evaluation.report import classes, pictures, settings
from captum_ablate.evaluation.report.downloads import Download, downloads
from captum_ablate.evaluation.report.figures import Picture
from captum_ablate.evaluation.report.heat_maps import HeatMap
from captum_ablate.evaluation.report.meaning import RANK, RANK_UNTIL, meanings
from captum_ablate.evaluation.report.pages import write
from captum_ablate.evaluation.report.repeat import citations, python_lines
from captum_ablate.evaluation.report.tables import Table
from captum_ablate.inputs.wording import listed, visible
from captum_ablate.statistics.intervals import LEVEL

if TYPE_CHECKING:
    from captum_ablate.evaluation.comparison import Comparison

MEASURED = "LayerUnitAblation"
"""The attribution whose scores are the measured deficits of single units."""


def report(comparison: Comparison, shown: pd.DataFrame, file: str | Path, command: str | None) -> Path:
    """Write the page of a comparison, whose printed columns are ``shown``; ``command`` repeats it, if one made it."""
    about = comparison.provenance
    names = [name for name in comparison.leaderboard["method"] if name in comparison.curves]
    measured = next((name for name in names if about.methods.get(name) == MEASURED), None)
    headings = Headings.of(about)
    pairs, tau = comparison.pairwise(), comparison.rank_correlation()
    return write(
        file,
        "comparison.html",
        title=f"Attributions compared on {about.layer_words}",
        lead=comparison.verdict,
        setting=comparison.setting,
        notes=comparison.notes,
        board=Table.of(shown, f"Leaderboard, best first, with {headings.intervals} of the gap", headings),
        footnotes=footnotes(about, GAP_MEANING),
        failed=[(visible(name), reason) for name, reason in comparison.failed.items()],
        meanings=meanings(shown.columns, headings, RANK if about.sampled is None else RANK_UNTIL),
        metric=about.metric_words,
        intervals=headings.intervals,
        bands=BANDS if about.ranking_resamples else "95 % over samples",
        gaps=pictures.gaps(comparison),
        curves=pictures.curves(comparison),
        gap_area=plots.GAP_AREA,
        equal=[listed(group) for group in plots.equal_curves(pictures.best_first(comparison)) if len(group) > 1],
        pairs=_pairs(pairs, names),
        against=_against(comparison, names[0]),
        per_class=classes.per_class(comparison, names),
        tau=_tau(tau, names),
        deficits=_deficits(comparison, measured, names, tau),
        **settings.sections(comparison),
        command=command,
        lines=python_lines(about, comparison[names[0]].n_ablated.tolist(), list(comparison)),
        citations=citations(about.versions.get("captum_ablate", "")),
        files=_files(comparison, pairs, tau),
    )


def _pairs(pairs: pd.DataFrame, names: list[str]) -> HeatMap | None:
    """Return the difference of each pair of gaps, marked where the data can tell; None for one method."""
    if len(names) < 2:
        return None
    place = {name: k for k, name in enumerate(names)}
    values = np.full((len(names), len(names)), np.nan)
    told = np.zeros(values.shape, dtype=bool)
    for row in pairs.to_dict("records"):
        a, b = place[row["method"]], place[row["other"]]
        values[a, b], values[b, a] = row["difference"], -row["difference"]
        told[a, b] = told[b, a] = row["p"] <= 1 - LEVEL
    caption = "Gap of the row's method minus that of the column's; * where p is at most 0.05 (Holm, over all pairs)"
    return HeatMap.of(values, names, names, caption, corner="gap minus", are_rows=True, marked=told)


def _against(comparison: Comparison, best: str) -> Table | None:
    """Return the best method's lead over each other one; None for one method."""
    rows: list[dict[str, Any]] = []
    for name in comparison.leaderboard["method"]:
        if name != best and name in comparison.curves:
            lead = comparison.versus(best, name)
            ends = {"lead_low": lead.interval.low, "lead_high": lead.interval.high}
            rows.append({"over": name, "lead": lead.value, **ends, "p": lead.p, "p_raw": lead.p_raw})
    return Table.of(pd.DataFrame(rows), f"Lead of {visible(best)} over each other method, in gap") if rows else None


def _tau(tau: pd.DataFrame, names: list[str]) -> HeatMap | None:
    """Return the rank correlations of the scores of each pair of methods; None for one method."""
    if len(names) < 2:
        return None
    values = tau.loc[names, names].to_numpy(np.float64, copy=True)
    np.fill_diagonal(values, np.nan)
    caption = "Kendall's tau-b between the scores of two methods, over units: 1 is the same order, -1 the reverse"
    return HeatMap.of(values, names, names, caption, corner="tau", are_rows=True)


def _deficits(
    comparison: Comparison, measured: str | None, names: list[str], tau: pd.DataFrame
) -> tuple[Picture, Table] | None:
    """Return scores drawn against the measured deficits of single units, and how well they agree; None without any."""
    others = [name for name in names if name != measured]
    if measured is None or not others:
        return None
    frame = pd.DataFrame({"method": others, "tau": [tau.loc[name, measured] for name in others]})
    caption = f"Kendall's tau-b between a method's scores and those of {visible(measured)}, over all units"
    return pictures.deficits(comparison, measured, others), Table.of(frame, caption)


def _files(comparison: Comparison, pairs: pd.DataFrame, tau: pd.DataFrame) -> list[Download]:
    scores = {name: curve.scores.numpy() for name, curve in comparison.curves.items()}
    units = pd.DataFrame({"unit": range(comparison.provenance.units)} | scores)
    frames = {
        "leaderboard.csv": ("every column of the leaderboard, and those that are not printed", comparison.leaderboard),
        "curves.csv": ("the metric at each step of each order", comparison.to_frame()),
        "pairs.csv": ("the difference of each pair of methods", pairs),
        "rank-correlation.csv": ("Kendall's tau-b of each pair of methods", tau.rename_axis("method").reset_index()),
        "scores.csv": ("the score of each unit, by method", units),
    }
    if (found := classes.frame(comparison)) is not None:
        frames["classes.csv"] = ("the gap of each class, by method", found)
    return downloads({name: frames[name] for name in sorted(frames)})
