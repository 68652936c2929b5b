"""Pictures of deficit curves and of the leaderboard, from plain frames."""

from __future__ import annotations

from itertools import cycle
from textwrap import wrap
from typing import Literal

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

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


def deficit_curves(
    frame: pd.DataFrame,
    random: pd.DataFrame | None = None,
    *,
    title: str = "",
    metric: str = "accuracy",
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw the score of each method as its units are ablated, with the band over images, and return the axes.

    ``frame`` has a row per method, direction and step: ``method, direction, fraction, score, low, high``.
    ``random`` has a row per random order and step: ``order, direction, fraction, score``.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(9.5, 5.2) if legend else (7.0, 5.0), layout="constrained")
    handles = [] if random is None or random.empty else [_random_orders(ax, random)]
    methods = list(dict.fromkeys(frame["method"]))
    styles = zip(methods, cycle(COLOURS), cycle(MARKERS))
    shown = [
        _method(
            ax,
            frame[frame["method"] == method],
            method,
            colour,
            marker if len(methods) > PLAIN else "",
            number,
        )
        for number, (method, colour, marker) in enumerate(styles)
    ]
    if (frame["direction"] == "ascending").any():
        handles.insert(
            0, Line2D([], [], color=DARK_GREY, linestyle="--", label="reverse order:\nleast important first")
        )
    ax.set_xlim(0, 1)
    ax.set_xlabel("units ablated (fraction)")
    ax.set_ylabel(metric.replace("_", " "))
    frame_lightly(ax, title or "Deficit curves, most important units ablated first", "y")
    subtitle(ax, "lower solid curve = the attribution finds units that the network needs")
    if legend:
        ax.legend(
            handles=[*shown, *handles],
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            frameon=False,
            fontsize="small",
        )
    return ax


def leaderboard_bars(frame: pd.DataFrame, ax: Axes | None = None, *, intervals: str = "95 % intervals") -> Axes:
    """Draw the gap of each method with its interval, in the order of ``frame``, and return the axes.

    ``frame`` has a row per method: ``method, gap, gap_low, gap_high``; ``intervals`` says what these ends are.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7.0, 1.5 + 0.32 * len(frame)), layout="constrained")
    rows = range(len(frame))
    ax.axvline(0, color=DARK_GREY, linewidth=1)
    ax.hlines(rows, frame["gap_low"], frame["gap_high"], color=COLOURS[0], linewidth=2.5, alpha=0.45)
    ax.plot(frame["gap"], rows, "o", color=COLOURS[0], markersize=6)
    for row, gap in zip(rows, frame["gap"], strict=True):
        ax.annotate(f"{gap:.3f}", (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize="small")
    ax.set_yticks(rows, frame["method"])
    ax.set_ylim(len(frame) - 0.4, -0.6)
    ax.set_xlabel("gap = deletion + insertion (random orders: 0 on average)")
    frame_lightly(ax, f"Leaderboard, with {intervals}", "x")
    subtitle(ax, "larger = the attribution finds the units that the network needs")
    return ax


def _method(ax: Axes, rows: pd.DataFrame, label: str, colour: str, marker: str, number: int) -> Line2D:
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
        label=label,
        zorder=4,
    )
    return line


def _random_orders(ax: Axes, random: pd.DataFrame) -> Line2D:
    """Draw each random order thin and their mean thick, in grey; return the legend entry."""
    for _, one in random.sort_values("fraction").groupby(["order", "direction"]):
        ax.plot(one["fraction"], one["score"], color=GREY, linewidth=0.6, alpha=0.5, zorder=1)
    mean = random.groupby("fraction")["score"].mean()
    ax.plot(mean.index, mean, color=DARK_GREY, linewidth=3, alpha=0.85, zorder=2)
    label = f"{random['order'].nunique()} random orders\n(thin) and their mean"
    return Line2D([], [], color=DARK_GREY, linewidth=3, alpha=0.85, label=label)


def frame_lightly(ax: Axes, title: str, grid: Literal["x", "y"]) -> None:
    """Give ``ax`` the look of our pictures: open frame, light grid, bold title at the left with room for a subtitle."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color=GREY, linewidth=0.5, alpha=0.5)
    ax.set_axisbelow(True)
    width = ax.get_window_extent().width / ax.figure.dpi  # inches
    size = 12 if width > 5 else 9  # in a row of axes, long titles would run into each other
    wrapped = "\n".join(wrap(title, max(20, int(width * 120 / size)), break_on_hyphens=False))
    ax.set_title(wrapped, loc="left", pad=20, fontweight="bold", fontsize=size)


def subtitle(ax: Axes, text: str) -> None:
    """Write ``text`` between the title of ``frame_lightly`` and the axes."""
    ax.annotate(text, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize="small")
