"""The page on Hayne et al.: what was measured, which claims hold, and our reasons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from benchmarks.papers.common.page import Seconds, Section, write_page
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.hayne import figures, superclasses
from benchmarks.papers.hayne.claims import over_networks
from benchmarks.papers.hayne.estimates import NetworkEstimates, network_estimates
from benchmarks.papers.hayne.protocol import MIN_UNITS, TILES, Sizes, study
from benchmarks.papers.hayne.subjects import Subject, subjects
from benchmarks.papers.hayne.tables import family_table, layer_table, model_table, network_table, variant_table

TITLE = "Hayne et al.: selectivity, activity, probes, and what ablation says"


def run(scale: Scale) -> None:
    """Run the protocol on the networks of this scale and write the page."""
    networks_page(
        subjects(scale),
        scale,
        command=f"python -m benchmarks.papers hayne {scale.option}".strip(),
        data=cifar_and_one_image_a_class(scale),
        keep=scale is not Scale.QUICK,
    )


def networks_page(
    networks: Sequence[Subject],
    scale: Scale,
    *,
    command: str,
    data: str,
    keep: bool,
    folder: Path | None = None,
) -> Path:
    """Measure ``networks`` and write ``hayne.md``."""
    measured = [study(subject, scale, keep=keep) for subject in networks]
    found = [network_estimates(one) for one in measured]
    sizes = Sizes.of(scale)
    return write_page(
        "hayne",
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
    """Return the paragraph on the data."""
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


def per_network(found: Sequence[NetworkEstimates]) -> Section:
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


def reasons(found: Sequence[NetworkEstimates]) -> Section:
    """Return our reading of the figures. All numbers in its text are computed, so they follow the tables."""
    table, layers = layer_table(found), [layer for one in found for layer in one.layers]
    r2 = {name: float(np.mean([one.regression.models.loc[name, "r2"] for one in found])) for name in ("M1", "M2", "M3")}
    activity_helps = sum(
        layer.regression.models.loc["M2", "aic"] < layer.regression.models.loc["M1", "aic"] for layer in layers
    )
    rho = {name: float(table[column].mean()) for column, name in figures.SCORES.items()}
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


def planes(found: Sequence[NetworkEstimates], sizes: Sizes) -> Section:
    return Section(
        "Deficits over the plane",
        f"""
Accuracy that a class loses when the units of a tile of its plane are ablated, minus the mean over {sizes.n_random}
random groups of as many units. Red: the group matters more than its size says.

{{planes}}
""",
        figures={"planes": figures.planes(found)},
        captions={
            "planes": "Excess deficit by tile, mean over classes. Top: layers of the first network; below: the last."
        },
    )


def regressions(found: Sequence[NetworkEstimates]) -> Section:
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
        figures={"scatter": figures.scatter(found)},
        captions={"scatter": "Each dot is a group of units and its class, all layers; lines are what M3 predicts."},
    )


def ranks(found: Sequence[NetworkEstimates]) -> Section:
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
        figures={"ranks": figures.ranks(table)},
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
