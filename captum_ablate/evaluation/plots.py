"""Pictures of deficit curves and of the leaderboard, from plain frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Literal

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from captum_ablate.evaluation.labels import headed, label, name_labels
from captum_ablate.inputs.wording import counted

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#e00040",
    "#202020",
    "#600060",
    "#0000e0",
    "#004000",
    "#4060e0",
)
"""Six colours of Okabe and Ito (2008) and six found by search: any two differ by at least 15 in CIELAB for
readers with protanopia or deuteranopia, and by 26 for the others."""

MARKERS = ("o", "s", "^", "D", "v", "*", "<", "p", ">", "h", "d", "P", "X")
"""Thirteen, so that colour and marker repeat together only after 156 methods."""

PLAIN = 5
"""Up to this many methods colour alone tells the curves apart; more get markers too, and lighter bands."""

GREY, DARK_GREY = "#b5b5b5", "#6e6e6e"

GAP_AREA = "area between a method's dashed and solid curve = its gap (negative where the solid one is above)"


def deficit_curves(
    frame: pd.DataFrame,
    random: pd.DataFrame | None = None,
    *,
    title: str = "",
    notes: Sequence[str] = (),
    metric: str = "accuracy",
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw the score of each method as its units are ablated, with the band over samples, and return the axes.

    ``frame`` has a row per method, direction and step: ``method, direction, fraction, score, low, high``.
    ``random`` has a row per random order and step: ``order, direction, fraction, score``. ``notes`` are sentences that
    stand above the curves.
    """
    if ax is None:
        size = curves_size(list(frame["method"].unique())) if legend else (7.0, 5.0)
        _, ax = plt.subplots(figsize=size, layout="constrained")
    handles = [] if random is None or random.empty else [_random_orders(ax, random)]
    methods = list(dict.fromkeys(frame["method"]))
    styles = zip(methods, _legend_labels(methods), cycle(COLOURS), cycle(MARKERS))
    shown = [
        _method(
            ax,
            frame[frame["method"] == method],
            name,
            colour,
            marker if len(methods) > PLAIN else "",
            number,
        )
        for number, (method, name, colour, marker) in enumerate(styles)
    ]
    goes_both_ways = bool((frame["direction"] == "ascending").any())
    if goes_both_ways:
        handles.insert(
            0, Line2D([], [], color=DARK_GREY, linestyle="--", label="reverse order:\nleast important first")
        )
    ax.set_xlim(0, 1)
    ax.set_xlabel("units ablated (fraction)")
    ax.set_ylabel(label(metric.replace("_", " ")))
    title = title or "Deficit curves, most important units ablated first"
    frame_lightly(ax, title, "y", *notes, GAP_AREA if goes_both_ways else "")
    if legend:
        ax.legend(
            handles=[*shown, *handles],
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            frameon=False,
            fontsize="small",
        )
    return ax


def curves_size(methods: Sequence[str]) -> tuple[float, float]:
    """Return the inches that the curves of these methods need, with a legend: width and height."""
    lines = [name.count("\n") + 1 for name in _legend_labels(methods)]
    return 9.5, max(5.2, 2.2 + 0.14 * sum(lines) + 0.045 * len(lines))


def leaderboard_bars(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    *,
    title: str = "",
    intervals: str = "95 % intervals",
    notes: Sequence[str] = (),
) -> Axes:
    """Draw the gap of each method with its interval, in the order of ``frame``, and return the axes.

    ``frame`` has a row per method: ``method, gap, gap_low, gap_high``; ``intervals`` says what these ends are.
    ``notes`` are sentences that stand above the bars.
    """
    names = name_labels(frame["method"], lines=2)
    if ax is None:
        _, ax = plt.subplots(figsize=bars_size(frame["method"]), layout="constrained")
    rows = range(len(frame))
    ax.axvline(0, color=DARK_GREY, linewidth=1)
    ax.hlines(rows, frame["gap_low"], frame["gap_high"], color=COLOURS[0], linewidth=2.5, alpha=0.45)
    ax.plot(frame["gap"], rows, "o", color=COLOURS[0], markersize=6)
    for row, gap in zip(rows, frame["gap"], strict=True):
        text = f"{gap:.3f}".replace("-", "\N{MINUS SIGN}")
        ax.annotate(text, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize="small")
    ax.set_yticks(rows, names, fontsize="small" if any("\n" in name for name in names) else "medium")
    ax.set_ylim(len(frame) - 0.4, -0.6)
    ax.set_xlabel("gap = deletion + insertion (random orders: 0 on average)")
    subtitle = "larger = the attribution finds the units that the network needs"
    frame_lightly(ax, title or f"Leaderboard, with {intervals}", "x", *notes, subtitle)
    return ax


def bars_size(methods: Iterable[str]) -> tuple[float, float]:
    """Return the inches that the bars of these methods need: width and height."""
    lines = [name.count("\n") + 1 for name in name_labels(methods, lines=2)]
    return 7.0, 1.7 + 0.16 * (len(lines) + sum(lines))


def _legend_labels(methods: Sequence[str]) -> list[str]:
    return name_labels(methods, lines=3 if len(methods) <= 8 else 2)


def _method(ax: Axes, rows: pd.DataFrame, name: str, colour: str, marker: str, number: int) -> Line2D:
    """Draw both directions of one method; return its legend entry."""
    forth, back = (rows[rows["direction"] == d].sort_values("fraction") for d in ("descending", "ascending"))
    many = bool(marker)
    spacing = max(1, len(forth) // 5)
    ax.plot(back["fraction"], back["score"], "--", color=colour, linewidth=0.9, alpha=0.65, zorder=3)
    ax.fill_between(
        forth["fraction"],
        forth["low"],
        forth["high"],
        color=colour,
        alpha=0.07 if many else 0.16,
        linewidth=0,
    )
    (line,) = ax.plot(
        forth["fraction"],
        forth["score"],
        color=colour,
        linewidth=1.8,
        marker=marker,
        markersize=8 if marker in "*PX" else 5.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        markevery=(
            1 + number % spacing,
            spacing,
        ),  # staggered, so that markers of close curves do not hide each other
        label=name,
        zorder=4,
    )
    return line


def _random_orders(ax: Axes, random: pd.DataFrame) -> Line2D:
    """Draw each random order thin and their mean thick, in grey; return the legend entry."""
    for _, one in random.sort_values("fraction").groupby(["order", "direction"]):
        ax.plot(one["fraction"], one["score"], color=GREY, linewidth=0.6, alpha=0.5, zorder=1)
    mean = random.groupby("fraction")["score"].mean()
    ax.plot(mean.index, mean, color=DARK_GREY, linewidth=3, alpha=0.85, zorder=2)
    orders, both = counted(random["order"].nunique(), "random order"), random["direction"].nunique() > 1
    curves = f"{orders}\nand reverses (thin)," if both else f"{orders} (thin),"
    return Line2D([], [], color=DARK_GREY, linewidth=3, alpha=0.85, label=f"{curves}\nmean of them (thick)")


def frame_lightly(ax: Axes, title: str, grid: Literal["both", "x", "y"], *notes: str) -> None:
    """Give ``ax`` the look of our pictures: open frame, light grid, bold title at the left with ``notes`` below it."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color=GREY, linewidth=0.5, alpha=0.5)
    ax.set_axisbelow(True)
    headed(ax, title, *notes)
