"""Does redundancy by the spectrum agree with redundancy by the curve? One figure over all trained networks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats
from torch import nn
from tqdm.auto import tqdm

from benchmarks.papers.common.classifiers import convolutional, dense
from benchmarks.papers.common.data import first, images
from benchmarks.papers.common.page import DOCS, markdown
from benchmarks.papers.common.scale import Scale
from captum_ablate import CumulativeAblationEvaluator, LayerMutualInformation, LayerUnitAblation, activation_spectrum
from captum_ablate.evaluation.plots import COLOURS, MARKERS, frame_lightly
from captum_ablate.studies import redundancy

LAYERS = {
    "mlp": ("act1", "act2"),
    "vgg": ("relu2", "relu3", "relu4", "relu5"),
    "resnet": ("block2.relu1", "block2.relu2", "block3.relu1", "block3.relu2"),
}
COLUMNS = {"participation": "participation ratio / units", "redundancy": "redundancy by the curve"}
REPLICATES = 2_000


def run(scale: Scale) -> None:
    """Measure every layer, and write ``docs/papers/index/joined.md``, ``.csv`` and ``.png``."""
    folder = Path(mkdtemp(prefix="papers-joined-")) if scale is Scale.QUICK else DOCS / "index"
    rows = [row for named in tqdm(list(_networks(scale)), desc="networks") for row in _layers(*named, scale)]
    print(f"wrote {write(pd.DataFrame(rows), folder)}")


def _networks(scale: Scale) -> Iterator[tuple[str, str, str, int]]:
    """Yield kind, data, activation and seed of each network."""
    for seed in range(scale.pick(1, 3)):
        for data in scale.pick(("mnist",), ("mnist", "fashion", "cifar10")):
            for activation in scale.pick(("relu",), ("relu", "tanh", "sigmoid")):
                yield "mlp", data, activation, seed
        for kind in scale.pick(("vgg",), ("vgg", "resnet")):
            yield kind, "cifar10", "relu", seed


def _layers(kind: str, data: str, activation: str, seed: int, scale: Scale) -> Iterator[dict[str, Any]]:
    """Yield a row per layer: its spectrum on training images, its ranking and its curve on others."""
    trained = dense(data, activation, seed, scale) if kind == "mlp" else convolutional(kind, seed, scale)
    network: nn.Module = trained.network
    split, quick = images(data), scale is Scale.QUICK
    ranked = tuple(first(split.rank, 200 if quick else 1_000))
    evaluated = tuple(first(split.evaluate, 100 if quick else (1_000 if kind == "mlp" else 300)))
    spectra_of = tuple(first(split.train, 500 if quick else 5_000))
    for layer in LAYERS[kind]:
        spectrum = activation_spectrum(network, layer, spectra_of, replicates=20)
        evaluator = CumulativeAblationEvaluator(network, layer, reference="mean", n_random=0, live_units_only=False)
        curve = evaluator.evaluate(LayerMutualInformation(network, layer), evaluated, ranking_data=ranked)
        alone = LayerUnitAblation(network, layer, reference="mean", metric="accuracy").attribute(*evaluated)
        yield {
            "kind": kind,
            "data": data,
            "activation": activation,
            "seed": seed,
            "layer": layer,
            "units": len(curve.order),
            "participation": spectrum.participation_ratio / len(curve.order),
            "redundancy": redundancy(curve, alone).value,
        }


def agreement(frame: pd.DataFrame, *, seed: int = 0) -> tuple[float, float, float]:
    """Return Spearman's rho of the two over layers, and a 95 % bootstrap interval, networks drawn whole."""
    rho = _rho(frame)
    networks = [group for _, group in frame.groupby(["kind", "data", "activation", "seed"])]
    stream = np.random.default_rng(seed)
    drawn = [
        _rho(pd.concat([networks[k] for k in stream.integers(0, len(networks), len(networks))]))
        for _ in range(REPLICATES)
    ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return rho, float(low), float(high)


def _rho(frame: pd.DataFrame) -> float:
    if frame["participation"].nunique() < 2 or frame["redundancy"].nunique() < 2:
        return float("nan")
    return float(stats.spearmanr(frame["participation"], frame["redundancy"]).statistic)


def write(frame: pd.DataFrame, folder: Path) -> Path:
    """Write the table, the figure and the text into ``folder``; return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / "joined.csv", index=False, float_format="%.6g")
    picture(frame).savefig(folder / "joined.png", dpi=150)
    groups = {"all layers": frame, **dict(list(frame.groupby("kind")))}
    rows = [
        {"layers of": name, "n": len(own), "rho": rho, "95 % interval": f"[{low:.2f}, {high:.2f}]"}
        for name, own in groups.items()
        for rho, low, high in [agreement(own)]
    ]
    rho, low, high = agreement(frame)
    agree = "agree" if high < 0 else "contradict each other" if low > 0 else "cannot be told to agree"
    page = folder / "joined.md"
    page.write_text(
        "## Redundancy by the spectrum and by the curve\n\n"
        "A code is redundant if its activations fill few directions (a low participation ratio, as a share of the "
        "units; Marshall "
        "and Kirchner), or if ablating its units costs less together than the sum of what each costs alone (area "
        "between that sum "
        "and the curve in the order of mutual information, mean reference, accuracy; our reading of Amjad, Liu and "
        "Geiger). If "
        "both measure one thing, they fall together: a rank correlation below 0.\n\n"
        f"Over {len(frame)} layers of {frame.groupby(['kind', 'data', 'activation', 'seed']).ngroups} networks "
        f"Spearman's rho is "
        f"**{rho:.2f} [{low:.2f}, {high:.2f}]**: the two {agree}. (Bootstrap over networks. Spectra on training "
        f"images, "
        "rankings on others, curves on others again; depth, width and data differ between the kinds, so look at "
        "the rows.)\n\n"
        f"{markdown(pd.DataFrame(rows))}\n\n![Redundancy by the spectrum against redundancy by the "
        f"curve](index/joined.png)\n\n"
        "`python -m benchmarks.papers joined`\n"
    )
    return page


def picture(frame: pd.DataFrame) -> Figure:
    """Draw a point per layer."""
    figure = Figure(figsize=(8.0, 5.2), layout="constrained")
    ax = figure.subplots()
    styles = zip(frame.groupby(["kind", "data", "activation"], sort=False), COLOURS, MARKERS, strict=False)
    for ((kind, data, activation), own), colour, marker in styles:
        label = f"{kind}, {data}, {activation}" if kind == "mlp" else f"{kind}, {data}"
        ax.scatter(own["participation"], own["redundancy"], color=colour, marker=marker, s=30, label=label)
    ax.set_xscale("log")
    ax.set_xlabel("participation ratio / units (fraction of 1): low = redundant")
    ax.set_ylabel("redundancy by the curve (area, fraction of 1)")
    ax.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    frame_lightly(ax, "Is a layer redundant? Two answers, a point per layer", "both")
    figure.legend(loc="outside right center", frameon=False, fontsize="small")
    return figure
