"""The pictures of the page on Amjad, Liu and Geiger."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from captum_ablate.evaluation.plots import COLOURS, DARK_GREY, deficit_curves, frame_lightly
from captum_ablate.studies import InformationPlane, LayerCurves, PairwiseSynergy, Redundancy


def curve_grid(found: Mapping[str, LayerCurves]) -> Figure:
    """Return the curves, a row per data set and a column per place, with one legend."""
    places = list(next(iter(found.values())).comparisons)
    figure = Figure(figsize=(4.4 * len(places), 3.6 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), len(places), squeeze=False, sharey="row")
    for row, (data, curves) in zip(axes, found.items(), strict=True):
        for ax, place in zip(row, places, strict=True):
            comparison = curves[place]
            units, orders = comparison.provenance.units, len(comparison.random)
            band = next(iter(comparison.curves.values())).random_band
            deficit_curves(comparison.to_frame(), band, orders=orders, ax=ax, legend=False)
            ax.set_ylabel("accuracy" if ax is row[0] else "")
            ax.set_title(f"{data}, {place} ({units} units)", loc="left", fontweight="bold", fontsize=11)
            for text in list(ax.texts):
                text.remove()  # the line under the title stands once, in the caption
    lines = {line.get_label(): line for line in axes[0][0].get_lines() if not line.get_label().startswith("_")}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines), frameon=False)
    return figure


def share_grid(table: pd.DataFrame) -> Figure:
    """Return the share of the gap, a row per activation function, a column per data set, a colour per place."""
    activations, data = (list(dict.fromkeys(table[name])) for name in ("activation", "data"))
    methods, places = (list(dict.fromkeys(table[name])) for name in ("method", "place"))
    figure = Figure(figsize=(4.2 * len(data) + 1, 2.5 * len(activations) + 0.5), layout="constrained")
    axes = figure.subplots(len(activations), len(data), squeeze=False, sharex="col", sharey=True)
    for row, activation in zip(axes, activations, strict=True):
        for ax, name in zip(row, data, strict=True):
            ax.axvline(0, color=DARK_GREY, linewidth=1)
            here = table[(table["activation"] == activation) & (table["data"] == name)]
            for k, place in enumerate(places):
                rows = here[here["place"] == place].set_index("method").loc[methods]
                y = [i + 0.22 * (k - (len(places) - 1) / 2) for i in range(len(methods))]
                ax.hlines(y, rows["low"], rows["high"], color=COLOURS[k], linewidth=2, alpha=0.5)
                ax.plot(rows["share"], y, "o^s"[k % 3], color=COLOURS[k], markersize=5, label=place)
            ax.set_yticks(range(len(methods)), methods)
            ax.set_ylim(len(methods) - 0.5, -0.5)
            frame_lightly(ax, "", "x")
            ax.set_title(f"{name}, {activation}", loc="left", fontweight="bold", fontsize=11)
    for ax in axes[-1]:
        ax.set_xlabel("gap / loss with every unit ablated")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def mechanisms(planes: Mapping[str, InformationPlane], redundant: Redundancy, synergy: PairwiseSynergy) -> Figure:
    """Return the information planes of both layers, and the redundancy and synergy of one."""
    figure = Figure(figsize=(12.0, 9.0), layout="constrained")
    axes = figure.subplots(2, 2)
    for ax, (layer, plane) in zip(axes[0], planes.items(), strict=False):
        plane.plot(ax)
        ax.set_title(f"Information plane of {layer}", loc="left", pad=20, fontweight="bold")
    redundant.plot(axes[1][0])
    synergy.plot(axes[1][1])
    return figure
