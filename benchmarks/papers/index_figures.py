"""The picture of the index page: every attribution on every network, under every reference."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure


def share_heatmap(frame: pd.DataFrame) -> Figure:
    """Return the share of the gap, a row per method, a column per network, a panel per reference; dots where unbeaten.

    ``frame`` has a row per network, reference and method: ``network, reference, method, share, unbeaten``.
    """
    order = frame.groupby("method")["share"].mean().sort_values(ascending=False).index
    networks, references = (list(dict.fromkeys(frame[name])) for name in ("network", "reference"))
    most = min(1.0, float(frame["share"].abs().max()))  # beyond, little is lost at all and the ratio says nothing
    figure = Figure(
        figsize=(2.2 + 0.75 * len(networks) * len(references), 2.6 + 0.33 * len(order)), layout="constrained"
    )
    axes = figure.subplots(1, len(references), sharey=True, squeeze=False)[0]
    image = None
    for ax, reference in zip(axes, references, strict=True):
        rows = frame[frame["reference"] == reference]
        shares = rows.pivot(index="method", columns="network", values="share").loc[order, networks]
        unbeaten = rows.pivot(index="method", columns="network", values="unbeaten").loc[order, networks]
        image = ax.imshow(shares, cmap="RdBu", vmin=-most, vmax=most, aspect="auto")
        for y, x in zip(*unbeaten.to_numpy(dtype=bool).nonzero(), strict=True):
            ax.plot(x, y, "o", color="white", markeredgecolor="black", markersize=5)
        ax.set_xticks(range(len(networks)), networks, rotation=55, ha="right", rotation_mode="anchor", fontsize=9)
        ax.set_yticks(range(len(order)), order)
        ax.set_title(f"{reference} reference", loc="left", fontweight="bold", fontsize=11)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
    figure.colorbar(image, ax=axes, label="gap / loss with every unit ablated", shrink=0.8)
    return figure
