"""Error correction: what is left of the inputs, layer by layer, in a network trained under dropout and a random one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.papers import copying
from benchmarks.papers.claims import Claim, judged_over
from benchmarks.papers.page import Section
from benchmarks.papers.scale import Scale
from benchmarks.papers.training import Trained
from captum_ablate.diagnostics.pictures import framed
from captum_ablate.evaluation.plots import COLOURS


def copiers(scale: Scale) -> dict[int, Trained]:
    """Return the trained networks by seed."""
    return {seed: copying.copier(seed, scale) for seed in range(scale.pick(1, 5))}


def decoded(networks: Mapping[int, Trained], scale: Scale) -> pd.DataFrame:
    """Return decoding R2 by layer, ``network, seed, layer, r2``, of each trained network and of a random one."""
    rows = []
    for seed, result in networks.items():
        random = copying.untrained(seed, len(result.network.layers))
        for name, network in (("trained", result.network), ("random", random)):
            found = copying.decoding(network, seed, n=scale.pick(600, 4_000))
            rows += [(name, seed, layer, r2) for layer, r2 in enumerate(found, start=1)]
    return pd.DataFrame(rows, columns=["network", "seed", "layer", "r2"])


def copying_claim(copied: pd.DataFrame) -> Claim:
    """Return C3.6."""
    last = copied[copied["layer"] == copied["layer"].max()].pivot(index="seed", columns="network", values="r2")
    return judged_over(
        "C3.6",
        "a network trained under dropout corrects its errors: a random one loses its inputs",
        f"decoding R2 at the last layer, trained minus random, above 0.3 (dropout on), {len(last)} seeds",
        last["trained"] - last["random"],
        threshold=0.3,
        note=f"trained {last['trained'].mean():.2f}, random {last['random'].mean():.2f}. Linear decoding for the "
        "supplement's MINE, and orthogonal weights to start from, so that 40 layers of tanh can be trained, are ours.",
    )


def copying_section(copied: pd.DataFrame) -> Section:
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    ax = figure.subplots()
    for number, (name, rows) in enumerate(copied.groupby("network", sort=False)):
        for _, own in rows.groupby("seed"):
            ax.plot(own["layer"], own["r2"], color=COLOURS[number], linewidth=0.6, alpha=0.5)
        mean = rows.groupby("layer")["r2"].mean()
        ax.plot(mean.index, mean, color=COLOURS[number], linewidth=2.2, label=f"{name} network")
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("layer")
    ax.set_ylabel("R2 of the inputs, decoded linearly")
    ax.legend(frameon=False, fontsize="small")
    framed(
        ax,
        "What is left of three inputs",
        f"tanh, 32 units a layer, dropout 0.2 after every fourth; {copied['seed'].nunique()} seeds",
    )
    table = copied.groupby(["network", "layer"], sort=False)["r2"].mean().unstack("network").reset_index()
    table["bits lost by the random network"] = (
        -0.5
        * copying.COPIED
        * (np.log2(1 - table["trained"].clip(upper=1 - 1e-9)) - np.log2(1 - table["random"].clip(upper=1 - 1e-9)))
    )
    every = table[(table["layer"] % 4 == 0) | (table["layer"] == 1)]
    text = (
        "The supplement's demonstration: a deep network of tanh copies three real inputs, with dropout that stays "
        "on at inference.\n\n"
        "{copying}\n\nThe last column is the difference of Gaussian information, -log2(1 - R2) / 2 for each of "
        "three inputs:\n\n{by_layer}"
    )
    return Section(
        "Error correction",
        text,
        tables={"by_layer": every},
        figures={"copying": figure},
        captions={"copying": "R2 of the inputs decoded from each layer on fresh samples; thin lines are seeds."},
    )
