"""The pictures of a report on one comparison: gaps, curves, and scores against measured deficits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure

from captum_ablate.evaluation import plots
from captum_ablate.evaluation.claims import Headings, marked
from captum_ablate.evaluation.labels import wrapped
from captum_ablate.evaluation.report.figures import Picture
from captum_ablate.inputs.wording import counted, listed, visible

if TYPE_CHECKING:
    from captum_ablate.evaluation.comparison import Comparison

TOP = 5
"""Curves that have colours."""

NARROW = 4.9
"""Inches that are read on a phone without scrolling."""

PANELS = 6
"""Methods whose scores are drawn against measured deficits."""


def best_first(comparison: Comparison) -> pd.DataFrame:
    """Return the frame of all curves, the best method first."""
    names = [name for name in comparison.leaderboard["method"] if name in comparison.curves]
    return pd.concat([comparison[name].to_frame() for name in names], ignore_index=True)


def curves(comparison: Comparison) -> Picture:
    """Return the curves: the best few in colours, the band of random orders, the rest in grey."""
    frame = best_first(comparison)
    groups = plots.equal_curves(frame)
    coloured = [name for group in groups[:TOP] for name in group]
    about = (
        f"Line plot of {comparison.provenance.metric_words} against the fraction of units ablated, from the most "
        f"important units on. In colours: {listed(coloured)}. The numbers are in curves.csv, at the end of this page."
    )
    return Picture.of(
        "curves", about, partial(_curves, comparison, frame, None), partial(_curves, comparison, frame, NARROW)
    )


def _curves(comparison: Comparison, frame: pd.DataFrame, width: float | None) -> Figure:
    """Return the figure of the curves, of the width that they need with a legend beside them, or of a ``width``."""
    wide, height = plots.curves_size(frame, TOP)
    size = (wide, height) if width is None else (width, height + 2.0)
    figure = Figure(figsize=size, layout="constrained")
    plots.deficit_curves(
        frame,
        next(iter(comparison.curves.values())).random_band,
        orders=len(comparison.random),
        yardstick=None if comparison.yardstick is None else comparison.yardstick.to_frame(),
        top=TOP,
        title=None,
        metric=comparison.provenance.metric,
        ax=figure.subplots(),
    )
    return figure


def gaps(comparison: Comparison) -> Picture:
    """Return the gap of each method with its interval, beside its rank."""
    board = comparison.leaderboard
    names = [marked(name, comparison.provenance) for name in board["method"]]
    board = board.assign(method=[f"{rank}  {name}" for rank, name in zip(board["rank"], names, strict=True)])
    intervals = Headings.of(comparison.provenance).intervals
    about = (
        f"Dots with bars: the gap of {counted(len(board), 'method')} with {intervals}, best first, each with its rank. "
        f"First: {visible(names[0])}. The numbers are in the leaderboard."
    )
    return Picture.of("leaderboard", about, partial(_gaps, board, intervals))


def _gaps(board: pd.DataFrame, intervals: str) -> Figure:
    _, height = plots.bars_size(board["method"])
    figure = Figure(figsize=(NARROW, height), layout="constrained")
    ax = plots.leaderboard_bars(board, figure.subplots(), title=None, intervals=intervals)
    ax.set_xlabel("gap")
    return figure


def deficits(comparison: Comparison, measured: str, others: list[str]) -> Picture:
    """Return the scores of the best of the ``others`` against the measured deficits of single units."""
    shown = others[:PANELS]
    about = (
        f"Scatter plots: a dot for each live unit, its score by {listed(shown)} against the deficit when it alone is "
        f"ablated, measured by {visible(measured)}. The numbers are in scores.csv, at the end of this page."
    )
    return Picture.of("measured deficits", about, partial(_deficits, comparison, measured, shown))


def _deficits(comparison: Comparison, measured: str, shown: list[str]) -> Figure:
    across = min(2, len(shown))
    down = -(-len(shown) // across)
    figure = Figure(figsize=(NARROW, 2.3 * down + 0.4), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    truth = comparison[measured]
    units = truth.order
    for ax, name in zip(panels, shown, strict=False):
        ax.plot(comparison[name].scores[units], truth.scores[units], "o", color=plots.COLOURS[0], markersize=3)
        plots.frame_lightly(ax, None, "both")
        ax.set_title(wrapped(visible(name)[:60], 28), loc="left", fontsize="small")
        ax.tick_params(labelsize="small")
        ax.locator_params(nbins=4)
    for ax in panels[len(shown) :]:
        ax.set_axis_off()
    figure.supxlabel("score", fontsize="medium")
    figure.supylabel("deficit of the unit alone", fontsize="medium")
    return figure
