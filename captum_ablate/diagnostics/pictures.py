"""Pictures of spectra, trajectories and capacities, from plain frames; in the style of the deficit curves."""

from __future__ import annotations

from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from captum_ablate.evaluation.plots import COLOURS, DARK_GREY, GREY


def spectrum(frame: pd.DataFrame, *, title: str, subtitle: str, slope: float, ax: Axes | None = None) -> Axes:
    """Draw eigenvalues by rank with the fitted line, and the slope of the threshold beside it.

    ``frame`` has a row per rank: ``rank, eigenvalue, fitted``.
    """
    ax = _axes(ax)
    shown = frame[frame["eigenvalue"] > frame["eigenvalue"].max() * 1e-12]
    ax.loglog(shown["rank"], shown["eigenvalue"], "o", color=COLOURS[0], markersize=3, label="eigenvalues")
    fitted = frame.dropna(subset="fitted")
    if len(fitted):
        ax.loglog(fitted["rank"], fitted["fitted"], color=COLOURS[1], linewidth=2.2, label="power law")
        start = fitted.iloc[0]
        guide = start["fitted"] * (fitted["rank"] / start["rank"]) ** -slope
        ax.loglog(fitted["rank"], guide, "--", color=DARK_GREY, linewidth=1.2, label=f"threshold: slope -{slope:.3g}")
    ax.set_xlabel("rank of the eigenvalue")
    ax.set_ylabel("eigenvalue (variance)")
    ax.legend(frameon=False, fontsize="small")
    return framed(ax, title, subtitle)


def trajectory(frame: pd.DataFrame, *, title: str, subtitle: str, slope: float, ax: Axes | None = None) -> Axes:
    """Draw the energy of projected trajectories by number of frames, with its fitted slope.

    ``frame`` has a row per number of frames: ``frames, energy, low, high``.
    """
    ax = _axes(ax)
    ax.fill_between(frame["frames"], frame["low"], frame["high"], color=COLOURS[0], alpha=0.16, linewidth=0)
    ax.loglog(frame["frames"], frame["energy"], "o", color=COLOURS[0], label="energy, 90 % of projections")
    centre = np.exp(np.log(frame["frames"]).mean())
    level = np.exp(np.log(frame["energy"]).mean())
    for value, style, colour, label in (
        (slope, "-", COLOURS[1], f"fitted slope {slope:.2f}"),
        (-1.0, "--", DARK_GREY, "slope -1: smooth"),
        (1.0, ":", DARK_GREY, "slope 1: white noise"),
    ):
        ax.loglog(frame["frames"], level * (frame["frames"] / centre) ** value, style, color=colour, label=label)
    ax.set_xscale("log", base=2)
    ax.set_xticks(frame["frames"], [str(frames) for frames in frame["frames"]])
    ax.set_xlabel("frames on the path")
    ax.set_ylabel("energy of the trajectory / its variance")
    ax.legend(frameon=False, fontsize="small")
    return framed(ax, title, subtitle)


def capacity(frame: pd.DataFrame, *, title: str, subtitle: str, ax: Axes | None = None) -> Axes:
    """Draw the bounds of the capacity by dropout rate; ``frame``: ``dropout, low, tight_low, high``."""
    ax = _axes(ax)
    ax.fill_between(frame["dropout"], frame["low"], frame["high"], color=COLOURS[0], alpha=0.16, linewidth=0)
    ax.plot(frame["dropout"], frame["high"], color=COLOURS[0], label="upper bound")
    ax.plot(frame["dropout"], frame["tight_low"], "--", color=COLOURS[2], label="lower bound, tighter form")
    ax.plot(frame["dropout"], frame["low"], color=COLOURS[1], label="lower bound")
    ax.set_xlim(0, 1)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("dropout rate")
    ax.set_ylabel("capacity of the layer (bits)")
    ax.legend(frameon=False, fontsize="small")
    return framed(ax, title, subtitle)


def framed(ax: Axes, title: str, subtitle: str = "", grid: Literal["both", "x", "y"] = "both") -> Axes:
    """Give ``ax`` a light frame, a grid, a title and a line below it; return it."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid, color=GREY, linewidth=0.5, alpha=0.5)
    ax.set_axisbelow(True)
    ax.set_title(title, loc="left", pad=20, fontweight="bold", fontsize=11)
    ax.annotate(subtitle, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize="small")
    return ax


def _axes(ax: Any) -> Axes:
    if ax is None:
        _, ax = plt.subplots(figsize=(7.0, 5.0), layout="constrained")
    return ax
