"""Redundancy against an additive network: what it reads where units only add up, and what its interval holds.

Perceptrons on digits and MNIST with two hidden layers of 64 units, ranked by mean activity. After the last hidden layer
units add up, after the first they need not. Samples are drawn with replacement from those held out, whose value is the
truth.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from benchmarks.coverage.chance import EPOCHS, split_of
from benchmarks.coverage.rules import covered
from benchmarks.papers.common.networks import mlp
from captum_ablate import CumulativeAblationEvaluator, LayerMeanActivity, LayerUnitAblation, studies
from captum_ablate.inputs.samples import train
from captum_ablate.statistics.intervals import bounded_interval, mean_interval

HIDDEN = (64, 64)


def redundancy(repeats: int) -> pd.DataFrame:
    """Return both readings of redundancy, and the coverage of the interval of the one against an additive network."""
    rows: list[dict[str, object]] = []
    for name, epochs in EPOCHS.items():
        data = split_of(name)
        network = mlp(data.train.images[0].numel(), hidden=HIDDEN)
        train(network, *data.train, epochs=epochs, show_progress=False)
        for layer in ("act1", "act2"):
            for metric in ("accuracy", "log_likelihood"):
                evaluator = CumulativeAblationEvaluator(network, layer, metric=metric, n_random=0)
                ranked = LayerMeanActivity(network, layer)
                curve = evaluator.evaluate(ranked, tuple(data.evaluate), ranking_data=tuple(data.rank))
                single = LayerUnitAblation(network, layer, metric=metric)
                summed = studies.redundancy(curve, single.attribute(data.evaluate.images, target=data.evaluate.labels))
                found = studies.additive_redundancy(evaluator, curve, tuple(data.evaluate))
                areas, truth = found.areas.numpy(), found.value
                readings = {"deficits added up": summed.value, "additive network": round(truth, 6) + 0.0}
                for n in (50, 200):
                    rng = np.random.default_rng(0)
                    rule = partial(bounded_interval, span=1.0) if metric == "accuracy" else mean_interval
                    draw = partial(rng.choice, areas, n)
                    spread = max(float(areas.std()), 1e-12)
                    held = covered({"coverage": rule}, draw, truth, 3.92 * spread / np.sqrt(n), repeats)
                    if spread < 1e-4:  # no width to compare with
                        held["coverage: width"] = float("nan")
                    setting = {"network": name, "layer": layer, "metric": metric, **readings, "samples": n}
                    rows.append(setting | {"coverage": held["coverage"], "width": held["coverage: width"]})
    return pd.DataFrame(rows)
