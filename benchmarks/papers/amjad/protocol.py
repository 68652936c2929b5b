"""Measure one network: curves, scores, deficits of single units, redundancy."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch
from scipy.stats import kendalltau
from torch import Tensor, nn

from benchmarks.papers.common.classifiers import dense
from benchmarks.papers.common.data import Labelled, first, images, joined
from benchmarks.papers.common.scale import Scale
from captum_ablate import (
    LayerClassSelectivity,
    LayerEntropy,
    LayerKLSelectivity,
    LayerMutualInformation,
    LayerUnitAblation,
)
from captum_ablate.studies import (
    InformationPlane,
    LayerCurves,
    activation_table,
    gap_share,
    information_plane,
    layer_curves,
    redundancy,
)

THRESHOLDS = {"relu": 0.0, "tanh": 0.0, "sigmoid": 0.5}
LAYERS = ("act1", "act2")
PLACES = (*LAYERS, "pooled")
REFERENCES = ("zero", "mean")
MAIN_REFERENCE = {"relu": "zero", "tanh": "zero", "sigmoid": "mean"}
"""The reference of the headline. Zero is an extreme value of a sigmoid, not "off"."""
EVALUATED = 1_000
"""Test images at normal scale."""


@dataclass(frozen=True)
class Case:
    """One trained network, named by its data, activation function and seed."""

    data: str
    activation: str
    seed: int


@dataclass(frozen=True)
class Study:
    """The measurements of one network.

    ``gaps`` has a row per reference, place and method, ``random`` a row per reference and place, ``scores`` a row per
    method. ``redundancy`` is by layer. ``violation`` is the largest excess over the bounds of the quantities, in bits.
    ``training`` and ``seconds`` are the seconds of training and of the measurements.
    """

    case: Case
    accuracy: float
    training: float
    gaps: pd.DataFrame
    random: pd.DataFrame
    scores: pd.DataFrame
    redundancy: dict[str, float]
    violation: float
    seconds: float


def methods(activation: str) -> dict[str, Any]:
    """Return the four quantities by name; each is a function ``(model, layer) -> attribution``."""
    quantiser = {"threshold": THRESHOLDS[activation]}
    return {
        "entropy": partial(LayerEntropy, **quantiser),
        "mutual information": partial(LayerMutualInformation, **quantiser),
        "KL selectivity": partial(LayerKLSelectivity, **quantiser),
        "class selectivity": LayerClassSelectivity,
    }


def parts(data: str, scale: Scale) -> tuple[Labelled, Labelled]:
    """Return the images for the ranking (at most 8,000 training images) and for the evaluation (1,000 test images)."""
    split = images(data)
    test = joined(split.rank, split.evaluate)
    return first(split.train, scale.pick(1_000, 8_000)), first(test, scale.pick(300, EVALUATED, 10_000))


def curves(network: nn.Module, case: Case, reference: str, scale: Scale) -> LayerCurves:
    """Return the curves of the four quantities, for each hidden layer and for both ranked together."""
    ranked, evaluated = parts(case.data, scale)
    options = {"steps": scale.pick(5, 10, 20), "n_random": scale.pick(2, 10), "seed": case.seed, "batch_size": 2_000}
    return layer_curves(
        network,
        LAYERS,
        methods(case.activation),
        evaluated,
        ranking_data=ranked,
        reference=reference,
        **options,
        live_units_only=False,
    )


def study(case: Case, scale: Scale) -> Study:
    """Train (or load) one network and measure it."""
    trained = dense(case.data, case.activation, case.seed, scale)
    network = trained.network
    ranked, evaluated = parts(case.data, scale)
    start = time.process_time()
    headline = MAIN_REFERENCE[case.activation]
    wanted = REFERENCES if case.activation == "relu" else (headline,)  # both are compared for ReLU alone
    by_reference = {reference: curves(network, case, reference, scale) for reference in wanted}
    main = by_reference[headline]
    deficits = {
        layer: LayerUnitAblation(network, layer, metric="accuracy", reference=headline).attribute(
            *evaluated, batch_size=2_000
        )
        for layer in LAYERS
    }
    planes = {layer: plane(network, layer, case.activation, ranked) for layer in LAYERS}
    return Study(
        case=case,
        accuracy=trained.accuracy,
        training=trained.seconds,
        gaps=pd.concat([_gaps(found, reference) for reference, found in by_reference.items()], ignore_index=True),
        random=pd.concat([_random(found, reference) for reference, found in by_reference.items()], ignore_index=True),
        scores=_scores(main, deficits),
        redundancy={layer: redundancy(main[layer]["mutual information"], deficits[layer]).value for layer in LAYERS},
        violation=max(_violation(found, ranked.labels) for found in planes.values()),
        seconds=time.process_time() - start,
    )


def plane(network: nn.Module, layer: str, activation: str, data: Labelled) -> InformationPlane:
    """Return the information plane of a layer under the protocol's quantiser."""
    table = activation_table(network, layer, data)
    return information_plane(table.values, table.target, threshold=THRESHOLDS[activation])


def _gaps(found: LayerCurves, reference: str) -> pd.DataFrame:
    """Return a row per place and method: the gap, its share, and the deletion beyond random orders."""
    rows = []
    for place, comparison in found.comparisons.items():
        chance = comparison.random.deletion
        for method, curve in comparison.curves.items():
            share, _ = gap_share(curve)
            beyond = curve.deletion - float(chance.mean()) - float(chance.std())
            rows.append((reference, place, method, curve.gap, share, beyond))
    return pd.DataFrame(rows, columns=["reference", "place", "method", "gap", "share", "beyond_random"])


def _random(found: LayerCurves, reference: str) -> pd.DataFrame:
    """Return a row per place: the mean deletion area of random orders."""
    rows = [(reference, place, float(c.random.deletion.mean())) for place, c in found.comparisons.items()]
    return pd.DataFrame(rows, columns=["reference", "place", "deletion"])


def _scores(found: LayerCurves, deficits: dict[str, Tensor]) -> pd.DataFrame:
    """Return a row per method: mean scores of both layers and their distance, the pooled order, Kendall's tau."""
    rows = []
    for method in found[LAYERS[0]].curves:
        one, two = (found[layer][method].scores for layer in LAYERS)
        within = float(
            torch.sqrt((one.var() * (len(one) - 1) + two.var() * (len(two) - 1)) / (len(one) + len(two) - 2))
        )
        apart = float(two.mean() - one.mean())
        order = found["pooled"][method].order
        top = order[: len(order) // 2]
        row = {
            "method": method,
            "mean1": float(one.mean()),
            "mean2": float(two.mean()),
            "apart": apart / within if within else float("nan"),
            "second_in_top_half": float((top >= len(one)).double().mean()),
        }
        both = {**dict(zip(LAYERS, (one, two), strict=True)), "pooled": torch.cat([one, two])}
        measured = {**deficits, "pooled": torch.cat([deficits[layer] for layer in LAYERS])}
        row |= {f"tau_{place}": float(kendalltau(both[place], measured[place]).statistic) for place in PLACES}
        rows.append(row)
    return pd.DataFrame(rows)


def _violation(plane: InformationPlane, labels: Tensor) -> float:
    """Return the largest excess, in bits, over I <= H, I <= KL and KL <= log2(1 / min P(c))."""
    most = -float(torch.log2(torch.bincount(labels).double().div(len(labels)).min()))
    excess = torch.stack(
        [
            plane.information - plane.entropy,
            plane.information - plane.kl_selectivity,
            plane.kl_selectivity - most,
        ]
    )
    return float(excess.max())
