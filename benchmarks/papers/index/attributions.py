"""Which attribution finds the units that a network needs? All of them, on trained networks, under three references.

``python -m benchmarks.papers attributions`` writes ``docs/papers/index/attributions.csv``, which the index page shows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.papers.common.classifiers import convolutional, dense
from benchmarks.papers.common.data import first, images
from benchmarks.papers.common.page import DOCS
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.common.training import Trained
from captum_ablate import CumulativeAblationEvaluator, LayerDatasetAttribution, LayerUnitAblation, unit_scores
from captum_ablate.commands.demo import attributions
from captum_ablate.evaluation.comparison import Comparison
from captum_ablate.inputs.model import find_layer
from captum_ablate.studies import activation_table, gap_share

REFERENCES = ("zero", "mean", "resample")
MEASURED = "unit ablation"
"""The method that is measured with the reference of the curve; the others do not know it."""
FILE = DOCS / "index" / "attributions.csv"
COLUMNS = (
    "network",
    "layer",
    "units",
    "accuracy",
    "reference",
    "method",
    "gap",
    "low",
    "high",
    "share",
    "p",
    "unbeaten",
    "seconds",
)


@dataclass(frozen=True)
class Setting:
    """A trained network and the layer whose units are ranked; a non-linear operation follows after the layer."""

    name: str
    data: str
    layer: str
    train: Callable[[Scale], Trained]


SETTINGS = (
    Setting("MLP, MNIST", "mnist", "act1", lambda scale: dense("mnist", "relu", 0, scale)),
    Setting("MLP, Fashion-MNIST", "fashion", "act1", lambda scale: dense("fashion", "relu", 0, scale)),
    Setting("MLP, CIFAR-10", "cifar10", "act1", lambda scale: dense("cifar10", "relu", 0, scale)),
    Setting("VGG-like, CIFAR-10", "cifar10", "relu4", lambda scale: convolutional("vgg", 0, scale)),
    Setting("ResNet, CIFAR-10", "cifar10", "block3.relu1", lambda scale: convolutional("resnet", 0, scale)),
)


def run(scale: Scale) -> None:
    """Measure every setting and write one row per network, reference and method."""
    settings = SETTINGS[:: scale.pick(4, 1)]
    frames = []
    for setting in settings:
        start = time.process_time()
        frames.append(measured(setting, scale))
        print(f"{setting.name}: {time.process_time() - start:.0f} s", flush=True)
    file = Path(mkdtemp(prefix="papers-attributions-")) / FILE.name if scale is Scale.QUICK else FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(frames, ignore_index=True).to_csv(file, index=False, float_format="%.6g")
    print(f"wrote {file}")


def measured(setting: Setting, scale: Scale) -> pd.DataFrame:
    """Return one row per reference and method, with ``COLUMNS``; ``seconds`` is the time of the ranking."""
    trained, split = setting.train(scale), images(setting.data)
    network = trained.network
    rank, evaluate = first(split.rank, scale.pick(40, 300, 1_000)), first(split.evaluate, scale.pick(100, 1_000, 5_000))
    units = activation_table(network, setting.layer, first(rank, 2)).values.shape[1]
    scores, seconds = ranked(attributions(network, setting.layer, seed=0), rank)
    rows = []
    for reference in REFERENCES:
        module = find_layer(network, setting.layer)
        start = time.process_time()
        scores[MEASURED] = LayerUnitAblation(network, module, reference=reference).attribute(*rank)
        seconds[MEASURED] = time.process_time() - start
        comparison = CumulativeAblationEvaluator(
            network,
            module,
            reference=reference,
            steps=scale.pick(4, 10, 20),
            n_random=scale.pick(2, 10),
            live_units_only=False,
        ).compare(scores, evaluate, ranking_data=rank)
        unbeaten = unbeaten_methods(comparison)
        for method, curve in comparison.curves.items():
            rows.append(
                {
                    "network": setting.name,
                    "layer": setting.layer,
                    "units": units,
                    "accuracy": trained.accuracy,
                    "reference": reference,
                    "method": method,
                    "gap": curve.gap,
                    "low": curve.gap_interval.low,
                    "high": curve.gap_interval.high,
                    "share": gap_share(curve)[0],
                    "p": as_good(curve.gap, comparison.random.gap),
                    "unbeaten": method in unbeaten,
                    "seconds": seconds[method],
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def as_good(gap: float, random: Tensor) -> float:
    """Return the share of random orders whose gap is as large, this one counted in: (1 + #) / (orders + 1)."""
    return (1 + int((random >= gap).sum())) / (len(random) + 1)


def ranked(methods: Mapping[str, Any], data: Any) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return the scores ``[units]`` of each method on ``data``, and its seconds of CPU time."""
    scores, seconds = {}, {}
    for name, method in methods.items():
        start = time.process_time()
        if isinstance(method, Tensor):
            scores[name] = method
        elif isinstance(method, LayerDatasetAttribution):
            scores[name] = method.attribute(*data)
        else:
            scores[name] = unit_scores(method, data)
        seconds[name] = time.process_time() - start
    return scores, seconds


def unbeaten_methods(comparison: Comparison) -> set[str]:
    """Return the methods whose gap no other beats: paired t over images, Holm over all pairs, 5 %."""
    board = comparison.leaderboard
    return {method for method, rank in zip(board["method"], board["rank"], strict=True) if rank.split("-")[0] == "1"}


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
