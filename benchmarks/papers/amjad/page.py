"""The page on Amjad, Liu and Geiger: tables and pictures over all networks."""

from __future__ import annotations

import time
from itertools import product

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from benchmarks.papers.amjad import figures
from benchmarks.papers.amjad.claims import Studies, claims
from benchmarks.papers.amjad.protocol import (
    LAYERS,
    MAIN_REFERENCE,
    THRESHOLDS,
    Case,
    curves,
    parts,
    plane,
    study,
)
from benchmarks.papers.amjad.toys import balance_error, twins
from benchmarks.papers.common.classifiers import dense
from benchmarks.papers.common.page import Seconds, Section, write_page
from benchmarks.papers.common.scale import Scale
from captum_ablate import LayerUnitAblation
from captum_ablate.statistics.intervals import mean_interval
from captum_ablate.studies import Redundancy, activation_table, pairwise_synergy, redundancy


def run(scale: Scale) -> None:
    """Run the protocol and write ``docs/papers/amjad.md``."""
    data = scale.pick(("mnist",), ("mnist", "fashion", "cifar10"))
    activations = scale.pick(("relu", "sigmoid"), ("relu", "tanh", "sigmoid"))
    cases = [Case(*one) for one in product(data, activations, range(scale.pick(2, 10, 20)))]
    for case in tqdm(cases, desc="training", unit="network"):
        dense(case.data, case.activation, case.seed, scale)
    studies = Studies([study(case, scale) for case in tqdm(cases, desc="ablating", unit="network")])
    start = time.process_time()
    plain = [c for c in cases if c.data == "mnist" and c.activation == "relu"]
    doubles = [twins(case, scale) for case in plain]
    found = claims(studies, doubles, max(balance_error(case, scale) for case in plain))
    sections = _sections(studies, scale)
    write_page(
        "amjad",
        "Amjad, Liu and Geiger: information-ordered cumulative ablation",
        command=f"python -m benchmarks.papers amjad {scale.option}".strip(),
        seconds=Seconds(
            time.process_time() - start + sum(s.seconds for s in studies.all), sum(s.training for s in studies.all)
        ),
        sections=sections,
        claims=found,
        scale=scale,
        introduction=_INTRODUCTION,
    )


def _sections(studies: Studies, scale: Scale) -> list[Section]:
    shown = {
        data: curves(dense(data, "relu", 0, scale).network, Case(data, "relu", 0), "zero", scale)
        for data in studies.data
    }
    table = studies.table()
    network = dense("mnist", "relu", 0, scale).network
    ranked, evaluated = parts("mnist", scale)
    planes = {layer: plane(network, layer, "relu", ranked) for layer in LAYERS}
    values = activation_table(network, "act2", ranked)
    synergy = pairwise_synergy(values.values, values.target, threshold=0.0)
    single = LayerUnitAblation(network, "act2", metric="accuracy").attribute(*evaluated)
    redundant: Redundancy = redundancy(shown["mnist"]["act2"]["mutual information"], single)
    return [
        Section(
            "Curves",
            "One ReLU network per data set (seed 0), zero reference. Solid: most important units first; dashed: the "
            "reverse; grey: random orders.",
            figures={"curves": figures.curve_grid(shown)},
            captions={"curves": "Accuracy on test images as units are ablated, by layer and with both layers pooled."},
        ),
        Section(
            "Gap by data set, activation function and place",
            _SHARES,
            tables={"shares": table, "networks": _networks(studies)},
            figures={"shares": figures.share_grid(table)},
            captions={"shares": "Share of the gap, mean over seeds with 95 % intervals."},
        ),
        Section(
            "Does a score mean the same in both layers?",
            "ReLU networks. `apart`: mean of the second layer minus that of the first, in standard deviations within "
            "layers. `second in top half`: how much of the upper half of the pooled order is units of the second "
            "layer. `tau`: Kendall's tau-b between the score and the accuracy that a unit alone costs.",
            tables={"across_layers": _across_table(studies)},
        ),
        Section(
            "Redundancy, synergy and the information plane",
            _REDUNDANCY,
            tables={"redundancy": _redundancy_table(studies)},
            figures={"mechanisms": figures.mechanisms(planes, redundant, synergy)},
            captions={"mechanisms": "Information plane of both layers; redundancy and pairwise synergy of the second."},
        ),
    ]


def _networks(studies: Studies) -> pd.DataFrame:
    rows = []
    for data, activation in product(studies.data, studies.activations):
        accuracies = [s.accuracy for s in studies.of(data, activation)]
        row = (data, activation, len(accuracies), min(accuracies), float(np.mean(accuracies)), max(accuracies))
        rows.append((*row, MAIN_REFERENCE[activation], f"a > {THRESHOLDS[activation]:g}"))
    columns = ["data", "activation", "networks", "lowest", "mean", "highest", "reference", "bit"]
    return pd.DataFrame(rows, columns=columns)


def _across_table(studies: Studies) -> pd.DataFrame:
    rows = []
    for data in studies.data:
        frames = pd.concat([s.scores for s in studies.of(data, "relu")])
        means = frames.groupby("method", sort=False).mean().reset_index()
        means.insert(0, "data", data)
        rows.append(means)
    return pd.concat(rows).rename(columns={"mean1": "mean of act1", "mean2": "mean of act2"})


def _redundancy_table(studies: Studies) -> pd.DataFrame:
    rows = []
    for data, activation, layer in product(studies.data, studies.activations, LAYERS):
        values = np.array([s.redundancy[layer] for s in studies.of(data, activation)])
        rows.append((data, activation, layer, float(values.mean()), *mean_interval(values)))
    return pd.DataFrame(rows, columns=["data", "activation", "layer", "redundancy", "low", "high"])


_INTRODUCTION = """
From the paper's abstract: neurons of trained fully connected networks are ordered by entropy, by mutual information
with the class, and by a class selectivity based on the Kullback-Leibler divergence, and ablated cumulatively; the
classification performance on the test set is watched, layer by layer and over the whole network; data: MNIST,
Fashion-MNIST, CIFAR-10. Bias balancing is named in the abstract of its first version.

Ours, because the abstract does not say: networks of two hidden layers with 100 units each; a quantiser with one bit
(ReLU and tanh above 0, sigmoid above 0.5); KL selectivity as the maximum over classes; the reference (zero, for
sigmoids the mean, because their zero is an extreme value and not "off"); the thresholds of all checks; the rules for
redundancy and synergy. Class selectivity (Morcos et al., 2018) runs beside the paper's three. Units are ranked on
at most 8,000 training images and evaluated on 1,000 test images, in 10 steps, against 10 random orders; intervals are
over seeds.
"""

_REDUNDANCY = """
Pictures: one ReLU network on MNIST (seed 0). Table: means over seeds with 95 % intervals. The redundancy is the
accuracy that single-unit deficits, added up, foretell, minus the curve, as an area: above 0 the units are redundant
(together they cost more than each alone foretells), below 0 they work jointly. The sign was chosen the other way round
(curve minus prediction) when the claims were written down, and reversed since: of a group of units that back each
other up, none is missed alone, so the prediction lies above the curve.
"""

_SHARES = """
The share is the gap divided by what is lost with every unit ablated, so that layers and the pooled order compare (a z
score against random orders does not: their spread shrinks with the number of units). Above 0: units with a high score
matter more than those with a low one. References and bits as in the second table.
"""
