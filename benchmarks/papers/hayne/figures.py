"""The pictures of the page on Hayne et al."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.papers.hayne.estimates import NetworkEstimates
from captum_ablate.evaluation.plots import COLOURS

SCORES = {
    "rho selectivity": "selectivity",
    "rho activity": "mean activity",
    "rho product": "selectivity x activity",
    "rho probe": "linear probe",
}
"""The columns of rank correlations in the table of layers, with the names of their scores."""


def planes(found: Sequence[NetworkEstimates]) -> Figure:
    """Return the excess deficit by tile of the first and the last network, a panel per layer."""
    shown = [found[0], found[-1]]
    columns = max(len(one.layers) for one in shown)
    figure, axes = plt.subplots(2, columns, figsize=(5.6 * columns, 9.6), layout="constrained", squeeze=False)
    for row, one in zip(axes, shown, strict=True):
        for ax in row[len(one.layers) :]:
            ax.set_axis_off()
        for ax, layer in zip(row, one.layers, strict=False):
            layer.study.deficits.plot(ax=ax)
            ax.set_title(
                f"{one.study.network}, {layer.study.layer}\n", loc="left", fontweight="bold", fontsize="medium"
            )
    return figure


def scatter(found: Sequence[NetworkEstimates]) -> Figure:
    """Return the deficits of groups of the first and the last network, with the prediction of M3."""
    shown = [found[0], found[-1]]
    figure, axes = plt.subplots(1, 2, figsize=(13.0, 4.8), layout="constrained")
    for ax, one in zip(axes, shown, strict=True):
        one.regression.plot(ax=ax)
        ax.set_title(
            f"{one.study.network}: {ax.get_title(loc='left')}", loc="left", fontweight="bold", fontsize="medium"
        )
    return figure


def ranks(table: pd.DataFrame) -> Figure:
    """Return the rank correlations of all scores with single-unit deficits, a row per network, a dot per layer."""
    networks = list(dict.fromkeys(table["network"]))
    figure, ax = plt.subplots(figsize=(7.6, 1.2 + 0.55 * len(networks)), layout="constrained")
    ax.axvline(0, color="#6e6e6e", linewidth=1)
    for k, (column, name) in enumerate(SCORES.items()):
        rows = np.array([networks.index(network) for network in table["network"]]) + 0.16 * (k - 1.5)
        ax.plot(table[column], rows, "os^D"[k], color=COLOURS[k], markersize=5, alpha=0.85, label=name)
    ax.set_yticks(range(len(networks)), networks)
    ax.set_ylim(len(networks) - 0.5, -0.5)
    ax.set_xlim(-1, 1)
    ax.set_xlabel("Spearman's rho with the drop of the margin, single units")
    ax.grid(axis="x", color="#b5b5b5", linewidth=0.5, alpha=0.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure
