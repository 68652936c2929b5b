"""Put the results of the benchmarks into ``docs/performance.md`` and draw its plot (``python -m benchmarks.page``).

A table stands between ``<!-- NAME -->`` and ``<!-- end -->``, where NAME is the benchmark. Tables without new results
stay as they are.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from benchmarks.cases import CASES
from benchmarks.side_by_side import CACHE, geometric_mean
from benchmarks.tables import markdown
from benchmarks.zoo.report import page_of, table_of
from benchmarks.zoo.sweep import CACHE as SWEEP
from benchmarks.zoo.sweep import kept
from captum_ablate.evaluation.plots import COLOURS, GREY

DOCS = Path(__file__).parents[1] / "docs"
BARS = {"curves": "a curve of 20 steps", "comparisons": "4 rankings and 5 random orders", "units": "each unit alone"}
SHORT = {
    "alexnet": "AlexNet",
    "densenet121": "DenseNet-121",
    "mobilenet_v2": "MobileNetV2",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "vgg11": "VGG-11",
    "vgg11_bn": "VGG-11 BN",
    "vit_b_16": "ViT-B/16",
}


def fill(page: str, name: str, text: str) -> str:
    """Return ``page`` with ``text`` between the marks of ``name``."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"the page needs a line <!-- {name} --> and a later <!-- end -->; it has none")
    return pattern.sub(lambda marks: f"{marks[1]}{text}\n{marks[2]}", page)


def text_of(name: str, results: pd.DataFrame) -> str:
    """Return the table of a benchmark, the geometric mean of its ratios if it has any, and its setting."""
    settings = results["setting"].unique() if "setting" in results else []
    shown = results.drop(columns="setting", errors="ignore")
    if "network" in shown:
        shown = shown.assign(network=shown["network"].map(lambda n: SHORT.get(n, n)))
    text = markdown(shown, digits=3) if name != "memory" else markdown(shown.astype(float).round(1), digits=5)
    if "ratio" in shown:
        ratios = shown["ratio"]
        text += f"\n\nGeometric mean {geometric_mean(ratios):.1f}x, from {ratios.min():.2g}x to {ratios.max():.3g}x."
    for setting in settings:
        own = shown["network"][results["setting"] == setting].unique() if len(settings) > 1 else []
        text += f"\n\n{', '.join(own)}{': run' if len(own) else 'Run'} with {setting}."
    return text


def in_order(results: pd.DataFrame) -> pd.DataFrame:
    """Return the rows in the order of the ten cases; rows of other cases follow."""
    if not {"network", "layer"} <= set(results):
        return results
    places = {(case.model, case.layer): k for k, case in enumerate(CASES)}
    keys = [places.get(key, len(places)) for key in zip(results["network"], results["layer"], strict=True)]
    return results.iloc[sorted(range(len(results)), key=keys.__getitem__)]


def draw(results: dict[str, pd.DataFrame], axes: Axes) -> None:
    """Draw the ratios of the cases as bars on a logarithmic axis, one colour per benchmark."""
    rows = pd.concat([results[name].assign(benchmark=name) for name in BARS if name in results])
    labels = [f"{SHORT.get(n, n)} {layer}" for n, layer in zip(rows["network"], rows["layer"], strict=True)]
    rows = rows.assign(case=[label.replace("encoder.layers.encoder_layer_", "layer ") for label in labels])
    cases, used = list(dict.fromkeys(rows["case"])), [name for name in BARS if name in results]
    height = 0.8 / len(used)
    for k, name in enumerate(used):
        mine = rows[rows["benchmark"] == name]
        places = [cases.index(case) + (k - (len(used) - 1) / 2) * height for case in mine["case"]]
        axes.barh(places, mine["ratio"] - 1, height, left=1, color=COLOURS[k], label=BARS[name])
        for place, ratio in zip(places, mine["ratio"], strict=True):
            axes.annotate(
                f" {ratio:.2g}" if ratio < 10 else f" {ratio:.0f}", (max(ratio, 1), place), va="center", fontsize=7
            )
    axes.set_xscale("log")
    top = max(rows["ratio"].max() * 1.6, 20)
    ticks = [t for t in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if t <= top]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks, [f"{t:g}x" for t in ticks])
    axes.set_xlim(min(0.8, rows["ratio"].min() * 0.9), top)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.grid(axis="x", color=GREY, linewidth=0.5, alpha=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("time of the hook loop (each unit alone: of Captum) over ours")
    axes.set_title("How many times faster than full forward passes", loc="left", fontweight="bold", fontsize=12)
    axes.figure.legend(frameon=False, fontsize="small", loc="outside lower center", ncols=3)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill the page and save the plot next to it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=CACHE, help="the folder of the benchmarks' CSV files")
    parser.add_argument("--page", type=Path, default=DOCS / "performance.md")
    options = parser.parse_args(arguments)
    results = {file.stem: in_order(pd.read_csv(file)) for file in sorted(options.results.glob("*.csv"))}
    page = options.page.read_text()
    for name, table in results.items():
        page = fill(page, name, text_of(name, table))
    swept = kept(SWEEP)
    if len(swept):
        page = fill(page, "zoo", table_of(swept))
        options.page.with_name("zoo.md").write_text(page_of(swept))
    options.page.write_text(page)
    if BARS.keys() & results.keys():
        figure, axes = plt.subplots(figsize=(8.5, 7.0), layout="constrained")
        draw(results, axes)
        figure.savefig(options.page.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
