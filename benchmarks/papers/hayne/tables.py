"""The tables of the page on Hayne et al."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmarks.papers.common.claims import verdict, with_interval
from benchmarks.papers.hayne.claims import WEAK, within
from benchmarks.papers.hayne.estimates import NetworkEstimates, values_of
from captum_ablate import interaction_regression
from captum_ablate.statistics.intervals import mean_interval
from captum_ablate.studies import InteractionRegression

FIGURES = {
    "C0.1 rho, selectivity": ("selectivity", 3),
    "C0.2b product": ("product", 4),
    "C0.3a rho, probe": ("probe", 3),
    "C0.3b overlap beyond chance": ("overlap", 3),
    "C0.4 deletion, difference": ("curves", 3),
}
"""The columns of estimates of one network: attribute of ``NetworkEstimates``, and digits."""


def family_table(found: Sequence[NetworkEstimates]) -> pd.DataFrame:
    """Return one row per figure: its mean in each family of networks, and over families with Student's t interval."""
    families = list(dict.fromkeys(one.study.family for one in found))
    rows = []
    for name, (figure, digits) in FIGURES.items():
        means = [np.mean(values_of([one for one in found if one.study.family == f], figure)) for f in families]
        over = with_interval(float(np.mean(means)), mean_interval(np.array(means)), digits=digits)
        cells = {f: f"{mean:.{digits}f}" for f, mean in zip(families, means, strict=True)}
        rows.append({"figure": name, **cells, f"mean of {len(families)}": over})
    return pd.DataFrame(rows)


def network_table(found: Sequence[NetworkEstimates]) -> pd.DataFrame:
    """Return one row per network: its figure, interval and verdict for each claim that a network can be judged by."""
    judge = {
        "selectivity": lambda interval: within(interval, -WEAK, WEAK),
        "probe": lambda interval: within(interval, 0.0, WEAK),
    }
    rows = []
    for one in found:
        cells = {}
        for name, (figure, digits) in FIGURES.items():
            mean, interval = getattr(one, figure)
            judgement = judge.get(figure, lambda interval: verdict(interval, 0.0))(interval)
            cells[name] = f"{with_interval(mean, interval, digits=digits)} {judgement}"
        rows.append({"network": one.study.network, "accuracy": one.study.accuracy, **cells})
    return pd.DataFrame(rows)


def layer_table(found: Sequence[NetworkEstimates]) -> pd.DataFrame:
    """Return one row per layer: rank correlations of its units, then the regression of its groups."""
    return pd.DataFrame([layer.row() for one in found for layer in one.layers])


def model_table(found: Sequence[NetworkEstimates]) -> pd.DataFrame:
    """Return R2 and AIC of the three models per network, with the product's permutation p."""
    rows = []
    for one in found:
        models, low_high = one.regression.models, one.regression.r2_gain_interval
        rows.append(
            {
                "network": one.study.network,
                "groups": one.regression.n,
                **{f"R2 {name}": models.loc[name, "r2"] for name in models.index},
                **{f"AIC {name}": f"{models.loc[name, 'aic']:.1f}" for name in models.index},
                "R2 M3 - M2": with_interval(one.regression.r2_gain, low_high),
                "p of the product": one.regression.p,
            }
        )
    return pd.DataFrame(rows)


def variant_table(found: Sequence[NetworkEstimates]) -> pd.DataFrame:
    """Return the product's coefficient under other choices: the deficit itself, and activity over all classes."""
    rows = []
    for one in found:
        groups = pd.concat([layer.study.groups for layer in one.layers], ignore_index=True)
        row: dict[str, object] = {"network": one.study.network, "as chosen": _product(one.regression)}
        row["deficit, chance not subtracted"] = _product(interaction_regression(groups, response="deficit"))
        row["activity over all classes"] = _product(interaction_regression(groups, activity="overall_activity"))
        rows.append(row)
    return pd.DataFrame(rows)


def _product(regression: InteractionRegression) -> str:
    return f"{with_interval(regression.product, regression.product_interval, digits=4)}, p = {regression.p:.3g}"
