"""Pictures of deficit curves and of the leaderboard, from plain frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from captum_ablate.evaluation.labels import headed, label, name_labels
from captum_ablate.inputs.wording import MOST_NAMES, counted
from captum_ablate.statistics.intervals import Floats, rank_intervals

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

GREY, DARK_GREY, BAND, BLACK = "#b5b5b5", "#6e6e6e", "#e6e6e6", "#000000"

NARROW = 4.5
"""Axes narrower than this many inches have their legend below."""

GAP_AREA = "area between a method's dashed and solid curve = its gap (negative where the solid one is above)"


def deficit_curves(
    frame: pd.DataFrame,
    random: pd.DataFrame | None = None,
    *,
    orders: int = 0,
    yardstick: pd.DataFrame | None = None,
    top: int | None = None,
    title: str | None = "",
    notes: Sequence[str] = (),
    metric: str = "accuracy",
    ax: Axes | None = None,
    legend: bool = True,
) -> Axes:
    """Draw the score of each method as its units are ablated, with the band over samples, and return the axes.

    ``frame`` has a row per method, direction and step: ``method, direction, fraction, score, low, high``, best method
    first. Equal curves are drawn once and named together. The ``top`` different ones have colours, the others are grey;
    None colours all. ``random`` has a row per step: ``fraction, low, median, high`` of ``orders`` random orders and
    their reverses. ``yardstick`` is such a frame of one method more, drawn dotted. ``notes`` are sentences that
    stand above the curves. Without them and any heading if ``title`` is None.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=curves_size(frame, top) if legend else (7.0, 5.0), layout="constrained")
    groups = equal_curves(frame)
    best, others = groups[:top], groups[len(groups[:top]) :]
    for rest in others:
        _in_grey(ax, frame[frame["method"] == rest[0]])
    handles = _lines(ax, frame, best)
    if others:
        more = counted(sum(map(len, others)), "more method")
        handles.append(Line2D([], [], color=GREY, linewidth=1.2, label=more))
    goes_both_ways = bool((frame["direction"] == "ascending").any())
    if goes_both_ways:
        handles.append(Line2D([], [], color=DARK_GREY, linestyle="--", label="reverse order:\nleast important first"))
    if random is not None and not random.empty:
        handles.append(_random_orders(ax, random, orders))
    if yardstick is not None:
        handles.append(_dotted(ax, yardstick))
    ax.set_xlim(0, 1)
    ax.set_xlabel("units ablated (fraction)")
    ax.set_ylabel(label(metric.replace("_", " ")))
    title = "Deficit curves, most important units ablated first" if title == "" else title
    frame_lightly(ax, title, "y", *notes, GAP_AREA if goes_both_ways else "")
    if legend:
        _legend(ax, handles)
    return ax


def equal_curves(frame: pd.DataFrame) -> list[list[str]]:
    """Return the methods of a frame of curves as they come, those whose curves are equal in one list."""
    groups: list[tuple[NDArray[np.float64], list[str]]] = []
    for method in dict.fromkeys(frame["method"]):
        rows = frame[frame["method"] == method].sort_values(["direction", "fraction"])
        curve = rows["score"].to_numpy(np.float64)
        for other, names in groups:
            if curve.shape == other.shape and np.allclose(curve, other, rtol=1e-12, atol=1e-12, equal_nan=True):
                names.append(method)
                break
        else:
            groups.append((curve, [method]))
    return [names for _, names in groups]


def curves_size(frame: pd.DataFrame, top: int | None = None) -> tuple[float, float]:
    """Return the inches that a frame of curves needs, with a legend: width and height."""
    lines = [name.count("\n") + 1 for name in _legend_labels(equal_curves(frame)[:top])]
    return 9.5, max(5.2, 2.2 + 0.14 * sum(lines) + 0.045 * len(lines))


def leaderboard_bars(
    frame: pd.DataFrame,
    ax: Axes | None = None,
    *,
    title: str | None = "",
    intervals: str = "95 % intervals",
    notes: Sequence[str] = (),
) -> Axes:
    """Draw the gap of each method with its interval, in the order of ``frame``, and return the axes.

    ``frame`` has a row per method: ``method, gap, gap_low, gap_high``; ``intervals`` says what these ends are.
    ``notes`` are sentences that stand above the bars. Without them and any heading if ``title`` is None.
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
    frame_lightly(ax, f"Leaderboard, with {intervals}" if title == "" else title, "x", *notes, subtitle)
    return ax


def bars_size(methods: Iterable[str]) -> tuple[float, float]:
    """Return the inches that the bars of these methods need: width and height."""
    lines = [name.count("\n") + 1 for name in name_labels(methods, lines=2)]
    return 7.0, 1.7 + 0.16 * (len(lines) + sum(lines))


def network_dots(
    order: Sequence[str],
    parts: Mapping[str, tuple[Sequence[str], Floats]],
    *,
    title: str | None,
    notes: Sequence[str] = (),
    ax: Axes | None = None,
) -> Axes:
    """Draw the mean rank of each method with its interval over networks, and a dot for each network; return the axes.

    ``parts`` have methods and their ranks ``[methods, networks]`` by name, each in a colour; ``order`` is from the top.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=dots_size(order, len(parts)), layout="constrained")
    for k, (name, (methods, ranks)) in enumerate(parts.items()):
        shift = 0.6 * ((k + 0.5) / len(parts) - 0.5)
        rows, colour = [order.index(method) + shift for method in methods], COLOURS[k % len(COLOURS)]
        for row, values in zip(rows, ranks, strict=True):
            ax.plot(values, [row] * len(values), "o", color=GREY, markersize=3.5, zorder=2)
        ends = np.array(rank_intervals(ranks))
        ax.hlines(rows, ends[:, 0], ends[:, 1], color=colour, linewidth=2.5, alpha=0.45, zorder=3)
        ax.plot(ranks.mean(axis=1), rows, "o", color=colour, markersize=6, label=label(name), zorder=4)
    ax.set_yticks(range(len(order)), name_labels(order, lines=2))
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.set_xlabel("mean rank (1 = largest gap)")
    frame_lightly(ax, title, "x", *notes, "small dots: networks; bars: 95 % intervals over networks, from 5 up")
    if len(parts) > 1:
        _legend(ax, ax.get_legend_handles_labels()[0])
    return ax


def dots_size(methods: Sequence[str], parts: int) -> tuple[float, float]:
    """Return the inches that the dots of these methods need, in ``parts`` rows each: width and height."""
    width, height = bars_size(methods)
    return width + (2.2 if parts > 1 else 0), height + 0.2 * len(methods) * (parts - 1)


def _legend_labels(groups: Sequence[Sequence[str]]) -> list[str]:
    """Return the label of each group of methods with equal curves, one name a line."""
    shown = [list(group[:MOST_NAMES]) for group in groups]
    names = iter(name_labels([name for group in shown for name in group], lines=3 if len(groups) <= 8 else 2))
    labels = ["\n= ".join(next(names) for _ in group) for group in shown]
    more = [max(0, len(group) - MOST_NAMES) for group in groups]
    return [f"{one}\n= {counted(k, 'more method')}" if k else one for one, k in zip(labels, more, strict=True)]


def _legend(ax: Axes, handles: Sequence[Artist]) -> None:
    """Write the legend beside the curves, or below them where these would be left no room."""
    at: dict[str, Any] = {"bbox_to_anchor": (1.01, 1.0)}
    if ax.get_window_extent().width / ax.figure.dpi < NARROW:
        below_ticks = ScaledTranslation(0, -0.5, ax.figure.dpi_scale_trans)
        at = {"bbox_to_anchor": (0.0, 0.0), "bbox_transform": ax.transAxes + below_ticks}
    ax.legend(handles=handles, loc="upper left", **at, frameon=False, fontsize="small")


def _lines(ax: Axes, frame: pd.DataFrame, groups: Sequence[Sequence[str]]) -> list[Artist]:
    """Draw each group of equal curves in a colour of its own; return their legend entries."""
    styles = zip(groups, _legend_labels(groups), cycle(COLOURS), cycle(MARKERS))
    return [
        _method(ax, frame[frame["method"] == group[0]], name, colour, marker if len(groups) > PLAIN else "", number)
        for number, (group, name, colour, marker) in enumerate(styles)
    ]


def _in_grey(ax: Axes, rows: pd.DataFrame) -> None:
    for direction, style in (("descending", "-"), ("ascending", "--")):
        one = rows[rows["direction"] == direction].sort_values("fraction")
        ax.plot(one["fraction"], one["score"], style, color=GREY, linewidth=0.8, zorder=2)


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
        zorder=2.5,  # over the band of random orders
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


def _random_orders(ax: Axes, random: pd.DataFrame, orders: int) -> Artist:
    """Draw the median of random orders and a band from 5 to 95 % of them, in grey; return the legend entry."""
    entry = f"{counted(orders, 'random order')} and\nreverses: median, 5 to 95 %"
    fraction = random["fraction"]
    ax.fill_between(fraction, random["low"], random["high"], color=BAND, linewidth=0, zorder=1, label="_")
    (line,) = ax.plot(fraction, random["median"], color=DARK_GREY, linewidth=2, zorder=2, label=entry)
    return line


def _dotted(ax: Axes, rows: pd.DataFrame) -> Artist:
    """Draw both directions of the yardstick; return its legend entry."""
    forth, back = (rows[rows["direction"] == d].sort_values("fraction") for d in ("descending", "ascending"))
    ax.plot(back["fraction"], back["score"], ":", color=BLACK, linewidth=0.9, zorder=3.5)
    name = label(rows["method"].iloc[0])
    (line,) = ax.plot(forth["fraction"], forth["score"], ":", color=BLACK, linewidth=1.8, zorder=3.5, label=name)
    return line


def frame_lightly(ax: Axes, title: str | None, grid: Literal["both", "x", "y"], *notes: str) -> None:
    """Give ``ax`` the look of our pictures: open frame, light grid, bold title at the left with ``notes`` below it.

    Without a ``title`` (None), neither it nor the notes are drawn.
    """
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color=GREY, linewidth=0.5, alpha=0.5)
    ax.set_axisbelow(True)
    if title is not None:
        headed(ax, title, *notes)
