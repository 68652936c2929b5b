"""Tiles of a plane, coloured by value and written upon."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from captum_ablate.evaluation.labels import headed, wrapped
from captum_ablate.inputs.wording import counted, shortened

EMPTY = "#f0f0f0"


def draw_tiles(
    ax: Axes,
    x_edges: NDArray[np.float64],
    y_edges: NDArray[np.float64],
    values: NDArray[np.float64],
    *,
    notes: Sequence[Sequence[str]],
    label: str,
    diverging: bool,
) -> None:
    """Draw ``values [columns, rows]`` between the edges, NaN in light grey, with a note in the middle of each tile.

    ``diverging`` centres the colours on 0: blue below, red above.
    """
    if diverging:
        most = float(np.nanmax(np.abs(values), initial=0)) or 1.0
        low, high, colours = -most, most, "RdBu_r"
    else:
        low, high, colours = 0.0, float(np.nanmax(values, initial=0)) or 1.0, "Blues"
    ax.set_facecolor(EMPTY)
    mesh = ax.pcolormesh(
        x_edges, y_edges, np.ma.masked_invalid(values.T), cmap=colours, vmin=low, vmax=high, edgecolors="white"
    )
    dark = 0.62 * high
    for column, row in np.ndindex(*values.shape):
        centre = (x_edges[column : column + 2].mean(), y_edges[row : row + 2].mean())
        colour = "white" if abs(values[column, row]) > dark else "#202020"
        ax.annotate(notes[column][row], centre, ha="center", va="center", fontsize=7, color=colour)
    ax.figure.colorbar(mesh, ax=ax, label=label)
    ax.spines[["top", "right"]].set_visible(False)


def draw_excess(
    ax: Axes,
    x_edges: NDArray[np.float64],
    y_edges: NDArray[np.float64],
    excess: Mapping[tuple[int, int], tuple[float, float]],
    *,
    layer: str,
    metric: str,
    subtitle: str,
) -> None:
    """Draw by tile what its group costs beyond random groups.

    ``excess[column, row]`` is the excess deficit, in units of ``metric``, and the number of units.
    """
    tiles = len(x_edges) - 1
    values = np.full((tiles, tiles), np.nan)
    notes = [[""] * tiles for _ in range(tiles)]
    for (column, row), (value, units) in excess.items():
        values[column, row] = value
        notes[column][row] = f"{value:+.3f}\n{counted(round(units), 'unit')}"
    lost = wrapped(f"{metric.replace('_', ' ')} lost beyond random groups", 60)
    draw_tiles(ax, x_edges, y_edges, values, notes=notes, label=lost, diverging=True)
    headed(ax, f"{shortened(layer, 80)}: deficit of each group beyond chance", subtitle, size=10)
