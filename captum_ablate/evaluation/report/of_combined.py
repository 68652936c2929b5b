"""The sections of the report on several networks combined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from captum_ablate.evaluation import plots
from captum_ablate.evaluation.claims import PLAIN
from captum_ablate.evaluation.curve import GAP_MEANING
from captum_ablate.evaluation.provenance import versions
from captum_ablate.evaluation.report.downloads import downloads
from captum_ablate.evaluation.report.figures import Picture
from captum_ablate.evaluation.report.heat_maps import HeatMap
from captum_ablate.evaluation.report.meaning import RANK_OVER_NETWORKS, meanings
from captum_ablate.evaluation.report.pages import write
from captum_ablate.evaluation.report.pictures import NARROW
from captum_ablate.evaluation.report.repeat import citations
from captum_ablate.evaluation.report.tables import Table
from captum_ablate.inputs.wording import counted, visible

if TYPE_CHECKING:
    from captum_ablate.evaluation.across_networks import AcrossNetworks
    from captum_ablate.evaluation.combined import Combined

TOLD = "* where the data of that network cannot tell the method from the best one"


def report(combined: Combined, boards: Mapping[str, pd.DataFrame], file: str | Path) -> Path:
    """Write the page of several networks; ``boards`` are the printed columns of each block, by its heading."""
    columns = dict.fromkeys(name for board in boards.values() for name in board.columns)
    networks = list(dict.fromkeys(name for block in combined.blocks for name in block.networks))
    agreement = combined.agreement().rename_axis("setting").reset_index()
    return write(
        file,
        "combined.html",
        title="Attributions compared on several networks",
        lead=combined.verdict,
        setting=f"{counted(len(networks), 'network')}, {counted(len(combined.blocks), 'setting')} "
        f"({'; '.join(block.name for block in combined.blocks)})",
        notes=combined.notes,
        boards=[Table.of(board, f"Leaderboard of {heading}") for heading, board in boards.items()],
        footnotes=[GAP_MEANING],
        failed=[],
        meanings=meanings(columns, PLAIN, RANK_OVER_NETWORKS),
        ranks=_ranks(combined),
        networks=[_networks(block) for block in combined.blocks],
        agreement=_agreement(combined) if len(combined.blocks) > 1 else None,
        comparisons=_comparisons(combined),
        citations=citations(versions()["captum_ablate"]),
        files=downloads(
            {
                "agreement.csv": ("Kendall's tau-b between the mean ranks of settings", agreement),
                "leaderboard.csv": ("every column of the leaderboards", combined.leaderboard),
                "networks.csv": ("the gap and rank of each method in each comparison", combined.to_frame()),
            }
        ),
    )


def _ranks(combined: Combined) -> Picture:
    """Return the mean rank of each method, with a dot for each network."""
    order = list(dict.fromkeys(name for block in combined.blocks for name in block.leaderboard["method"]))
    about = (
        f"Dots: the mean rank of {counted(len(order), 'method')} over networks, a small grey dot for each network; "
        f"bars are 95 % intervals over networks, from 5 up. First: {visible(order[0])}. "
        "The numbers are in the leaderboards."
    )
    return Picture.of("mean ranks", about, partial(_dots, combined, order))


def _dots(combined: Combined, order: Sequence[str]) -> Figure:
    parts = {block.name: (block.methods, block.means("rank")) for block in combined.blocks}
    _, height = plots.dots_size(order, len(parts))
    size = (NARROW, height + 0.3 * len(parts))
    figure = Figure(figsize=size, layout="constrained")
    plots.network_dots(order, parts, title=None, ax=figure.subplots())
    return figure


def _networks(block: AcrossNetworks) -> HeatMap:
    """Return the gap of each method in each comparison of a block, the best method first."""
    shape = (-1, len(block.methods))  # each comparison has a row for each method, in this order
    first = block.results.iloc[:: len(block.methods)]
    order = [block.methods.index(name) for name in block.leaderboard["method"]]
    apart = "" if block.is_one_setting else " (settings differ: gaps compare within a column only)"
    return HeatMap.of(
        block.results["gap"].to_numpy(np.float64).reshape(shape).T[order],
        block.leaderboard["method"].tolist(),
        [f"{network}, {layer}" for network, layer in zip(first["network"], first["layer"], strict=True)],
        f"Gap in each comparison, {block.name}{apart}; {TOLD}",
        corner="method",
        marked=block.results["is_best"].to_numpy(bool).reshape(shape).T[order],
        by_column=not block.is_one_setting,
    )


def _agreement(combined: Combined) -> HeatMap:
    table = combined.agreement()
    values = table.to_numpy(np.float64, copy=True)
    np.fill_diagonal(values, np.nan)
    caption = "Kendall's tau-b between the mean ranks under two settings, over the methods of both"
    return HeatMap.of(values, list(table.index), list(table.columns), caption, corner="tau", are_rows=True)


def _comparisons(combined: Combined) -> Table:
    """Return the networks and layers that each setting was measured on."""
    rows = [
        {"setting": block.name, "network": network, "layers": ", ".join(dict.fromkeys(own["layer"]))}
        for block in combined.blocks
        for network, own in block.results.groupby("network", sort=False)
    ]
    return Table.of(pd.DataFrame(rows), "Networks and layers of each setting")
