"""Hayne et al., "Much Easier Said Than Done" (arXiv 2211.04367): selectivity, activity, probes and ablation.

``python -m benchmarks.papers.hayne --imagenet FOLDER --weights FOLDER`` runs the same on the four networks of the
paper, as torchvision has them, where a user has ImageNet.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from benchmarks.papers import superclasses
from benchmarks.papers.hayne_claims import (
    NetworkFigures,
    family_table,
    layer_table,
    model_table,
    network_figures,
    network_table,
    over_networks,
    variant_table,
)
from benchmarks.papers.hayne_protocol import MIN_UNITS, TILES, Sizes, study
from benchmarks.papers.hayne_subjects import Subject, subjects, torchvision_subjects
from benchmarks.papers.page import Seconds, Section, write_page
from benchmarks.papers.scale import Scale
from captum_ablate.evaluation.plots import COLOURS

TITLE = "Hayne et al.: selectivity, activity, probes, and what ablation says"
SCORES = {
    "rho selectivity": "selectivity",
    "rho activity": "mean activity",
    "rho product": "selectivity x activity",
    "rho probe": "linear probe",
}


def run(scale: Scale) -> None:
    """Run the protocol on the networks of this scale and write the page."""
    networks_page(
        subjects(scale),
        scale,
        command=f"python -m benchmarks.papers hayne {scale.option}".strip(),
        data=cifar_and_one_image_a_class(scale),
        name="hayne",
        keep=scale is not Scale.QUICK,
    )


def networks_page(
    networks: Sequence[Subject],
    scale: Scale,
    *,
    command: str,
    data: str,
    name: str,
    keep: bool,
    folder: Path | None = None,
) -> Path:
    """Measure ``networks`` and write the page ``name``."""
    measured = [study(subject, scale, keep=keep) for subject in networks]
    found = [network_figures(one) for one in measured]
    sizes = Sizes.of(scale)
    return write_page(
        name,
        TITLE,
        command=command,
        seconds=Seconds(sum(one.seconds for one in measured), sum(one.training for one in measured)),
        scale=scale,
        folder=folder,
        introduction=f"""
From the paper's abstract: linear probes rank highly selective units as the most important, yet ablating those costs
little, and only sometimes; the authors "systematically ablate groups of units in subregions of activation space",
find a weak relation between the units that probes and ablation pick, and find that "an interaction between
selectivity and the average activity of the unit better predicts ablation performance deficits for groups of units" in
AlexNet, VGG16, MobileNetV2 and ResNet101.

We had the abstract alone, so all else is **ours**: the selectivity index (Morcos et al., 2018), the plane (a unit's
selectivity for a class against its mean activity in that class, one plane per class), its tiles ({TILES} x {TILES} of
equal width, those with fewer than {MIN_UNITS} units left out), the layers, the regression, the probe (standardised
multinomial logistic regression), the thresholds. Units are set to zero.

{data.strip()}""",
        sections=[
            per_network(found),
            reasons(found),
            planes(found, sizes),
            regressions(found),
            ranks(found),
            limits(),
        ],
        claims=over_networks(found),
    )


def cifar_and_one_image_a_class(scale: Scale) -> str:
    """Return what the page says of its data."""
    ranked, evaluated = scale.pick((300, 100), (2_000, 1_000), (5_000, 5_000))
    kinds = "VGG-like and ResNet" + scale.pick("", "", ", AlexNet-like and MobileNetV2-like")
    trained = scale.pick(
        "one seed each, a quarter as wide, trained for one epoch on 2,000", "three seeds each, trained on 20,000"
    )
    cifar = f"""
Data: small {kinds} networks, {trained} images of CIFAR-10;
scores from {ranked:,} of its test images, deficits on {evaluated:,} others."""
    if scale is Scale.QUICK:
        return cifar
    members = ", ".join(f"{name} ({len(indices)})" for name, indices in superclasses.members().items())
    return f"""{cifar}
And EfficientNet-Lite0, a descendant of MobileNetV2 pretrained on ImageNet, on one image of each of the 1,000 classes.
One image makes no statistics of a class, so its classes here are six words of WordNet that join many (our choice:
{members}; at most 118 images of one).
The logits of a word's classes are joined by log-sum-exp, and all other classes are a seventh output; one half of each
word's classes gives the scores, the other the deficits (200 images). They are likely training images."""


def per_network(found: Sequence[NetworkFigures]) -> Section:
    return Section(
        "Per network",
        """
Figures are means over a network's layers. Intervals: C0.1 and C0.3a bootstrap over units; C0.2b bootstrap over groups
within class and layer, all layers in one regression; C0.3b exact binomial; C0.4 Student's t over images.

{networks}

Seeds of one family share data and architecture, so here are also the means of each family, and their mean with
Student's t interval over families. No verdict hangs on it.

{families}
""",
        tables={"networks": network_table(found), "families": family_table(found)},
    )


def reasons(found: Sequence[NetworkFigures]) -> Section:
    """Return what we make of the figures; the numbers in it are computed, so that they follow the tables."""
    table, layers = layer_table(found), [layer for one in found for layer in one.layers]
    r2 = {name: float(np.mean([one.regression.models.loc[name, "r2"] for one in found])) for name in ("M1", "M2", "M3")}
    activity_helps = sum(
        layer.regression.models.loc["M2", "aic"] < layer.regression.models.loc["M1", "aic"] for layer in layers
    )
    rho = {name: float(table[column].mean()) for column, name in SCORES.items()}
    chosen = table["probe with selectivity"]
    widest = table.loc[table["C0.4"].idxmax()]
    opposed = stats.spearmanr(table["selectivity with activity"], table["C0.4"])
    return Section(
        "What came out, and why we think so",
        f"""
**The product in regressions of groups (C0.2).** R2, mean over networks, is {r2["M1"]:.3f} with selectivity and size
(M1). Activity as a term of its own adds {r2["M2"] - r2["M1"]:.3f} (M2), and the product {r2["M3"] - r2["M2"]:.3f} (M3).
Had the claim been that selectivity and activity *together* predict better than selectivity alone, one would count
layers with AIC(M2) < AIC(M1): {activity_helps} of {len(layers)}. We read the abstract's word "interaction" as the
product before we ran this, so there is no verdict on the other reading. A layer has {table["groups"].min()} to
{table["groups"].max()} groups, few for a small effect.

**Scores of single units (C0.1, C0.3).** Spearman's rho with the drop of the margin, mean over layers:
{", ".join(f"{name} {value:.2f}" for name, value in rho.items())}. The abstract says that probes rank highly selective
units as the most important; here the rank correlation of the probe's scores with selectivity is
{chosen.mean():.2f} in the mean over layers ({chosen.min():.2f} to {chosen.max():.2f}). Neither comparison was
planned, so neither has a verdict.

**The product as an order (C0.4).** Its advantage over selectivity is largest in {widest["network"]},
{widest["layer"]}: {widest["C0.4"]:.3f}. There selectivity and mean activity of units have a rank correlation of
{widest["selectivity with activity"]:.2f}. Our guess: where selective units are seldom active, the order by selectivity
begins with units whose ablation changes little. Over all {len(table)} layers that rank correlation and the advantage
have a Spearman's rho of {opposed.statistic:.2f} (p = {opposed.pvalue:.2f}). In that layer the deficits of single units
give {widest["rho selectivity"]:.2f} for selectivity and {widest["rho product"]:.2f} for the product: what a unit costs
alone need not be what it costs among many.
""",
    )


def planes(found: Sequence[NetworkFigures], sizes: Sizes) -> Section:
    return Section(
        "Deficits over the plane",
        f"""
Accuracy that a class loses when the units of a tile of its plane are ablated, minus the mean over {sizes.n_random}
random groups of as many units. Red: the group matters more than its size says.

{{planes}}
""",
        figures={"planes": _planes(found)},
        captions={
            "planes": "Excess deficit by tile, mean over classes. Top: layers of the first network; below: the last."
        },
    )


def regressions(found: Sequence[NetworkFigures]) -> Section:
    return Section(
        "Three models of the deficit",
        """
A row of the regression is a group of units and its class. With s and a the group's mean selectivity and activity
(standardised in each layer before the product is formed) and n the logarithm of its size, M1: D ~ 1 + s + n; M2: D ~
1 + s + a + n; M3: D ~ 1 + s + a + n + s a. The permutation test of the product is Freedman and Lane's, M3 against M2,
within class and layer.

{models}

{scatter}

The product's coefficient under two other choices:

{variants}
""",
        tables={"models": model_table(found), "variants": variant_table(found)},
        figures={"scatter": _scatter(found)},
        captions={"scatter": "Each dot is a group of units and its class, all layers; lines are what M3 predicts."},
    )


def ranks(found: Sequence[NetworkFigures]) -> Section:
    table = layer_table(found)
    lost = pd.concat([layer.study.units["accuracy"] for one in found for layer in one.layers])
    units = [*table.columns[: table.columns.get_loc("groups")]]
    return Section(
        "Single units, layer by layer",
        f"""
Spearman's rho of a score with the measured drop of the margin (the label's logit minus the largest other) when the
unit alone is ablated, over live units. The margin, because a unit alone changes few answers: it costs at most
{lost.max():.1%} accuracy, and {(lost == 0).mean():.0%} of the units cost none. "Of accuracy" and "of preferred class"
(drop of the margin on images of the class that the unit prefers) stand beside it.
Reliability is the Spearman-Brown correlation of the drops on two halves of the images: no score can agree much better
than its square root. "Selectivity with activity" and "probe with selectivity" are rank correlations of two scores, and
"C0.4" is the layer's deletion area by selectivity x activity minus that by selectivity. The second table is the
regression, layer by layer.

{{ranks}}

{{layers}}
""",
        tables={"layers": table[units], "layer-regressions": table[["network", "layer", *table.columns[len(units) :]]]},
        figures={"ranks": _ranks(table)},
        captions={"ranks": "Rank correlation of each score with measured single-unit deficits; one dot per layer."},
    )


def limits() -> Section:
    return Section(
        "What this does not show",
        """
The paper's networks were not run: no pretrained AlexNet, VGG16, MobileNetV2 or ResNet101 was at hand, and no more of
ImageNet than one image a class. Who has both runs the same protocol with `python -m benchmarks.papers.hayne --imagenet
FOLDER --weights DEFAULT` (or a folder of state dicts). Three seeds of one architecture share their images and are not
independent, so the interval over networks says little beyond these architectures. Groups of one class share its
images, and rows of the regression are permuted as if exchangeable within class and layer. With 29 or
fewer images in a half of four of the six words, EfficientNet's deficits are coarse. Zeroing the output of a branch of a
residual block (`relu1`, `act2`) leaves the shortcut.
""",
    )


def _planes(found: Sequence[NetworkFigures]) -> Figure:
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


def _scatter(found: Sequence[NetworkFigures]) -> Figure:
    shown = [found[0], found[-1]]
    figure, axes = plt.subplots(1, 2, figsize=(13.0, 4.8), layout="constrained")
    for ax, one in zip(axes, shown, strict=True):
        one.regression.plot(ax=ax)
        ax.set_title(
            f"{one.study.network}: {ax.get_title(loc='left')}", loc="left", fontweight="bold", fontsize="medium"
        )
    return figure


def _ranks(table: pd.DataFrame) -> Figure:
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the protocol on torchvision's pretrained networks and a folder of ImageNet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.papers.hayne", description=main.__doc__)
    parser.add_argument("--imagenet", type=Path, required=True, help="a folder with one folder of images per class")
    parser.add_argument("--weights", default="DEFAULT", help="a folder with alexnet.pth, ..., or DEFAULT (downloads)")
    parser.add_argument("--classes", type=int, default=20, help="classes drawn (%(default)s)")
    parser.add_argument("--images", type=int, default=50, help="most images of a class (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("hayne-torchvision"), help="folder for the page (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="few random groups and steps")
    asked = parser.parse_args(arguments)
    networks = torchvision_subjects(asked.imagenet, asked.weights, classes=asked.classes, images_per_class=asked.images)
    if len(networks) < 2:
        parser.error(f"{asked.weights} holds the weights of {len(networks)} of the networks; at least 2 are needed")
    networks_page(
        networks,
        Scale.QUICK if asked.quick else Scale.NORMAL,
        command=f"python -m benchmarks.papers.hayne --imagenet FOLDER --weights {asked.weights}",
        data=f"""
Data: torchvision's pretrained networks, {asked.classes} classes of ImageNet drawn at random, up to {asked.images}
images of
each, one half for the scores and the other for the deficits.""",
        name="hayne",
        keep=False,
        folder=asked.out,
    )


if __name__ == "__main__":
    main()
