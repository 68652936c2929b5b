"""The four claims of Hayne et al., each judged per network and over networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from benchmarks.papers.claims import Claim, Verdict, judged, judged_over, reported, verdict, with_interval
from benchmarks.papers.hayne_protocol import LayerStudy, NetworkStudy
from captum_ablate import interaction_regression, rank_agreement
from captum_ablate.statistics.intervals import LEVEL, Interval, mean_interval
from captum_ablate.studies import InteractionRegression, RankAgreement

WEAK = 0.5
"""A rank correlation below this is weak: our threshold."""


@dataclass(frozen=True, eq=False)
class LayerFigures:
    """What is computed of one layer's measurements."""

    study: LayerStudy
    selectivity: RankAgreement
    probe: RankAgreement
    regression: InteractionRegression

    @property
    def interaction_helps(self) -> bool:
        """Whether AIC(M3) < AIC(M1) and the product's permutation p is below 0.05."""
        return self.regression.aic_gain("M1") > 0 and self.regression.p < 0.05

    @property
    def curves(self) -> float:
        """Deletion area of selectivity x activity minus that of selectivity, mean over images."""
        return float(_difference(self.study, "deletion").mean())

    def row(self) -> dict[str, object]:
        units, models = self.study.units, self.regression.models
        halves = stats.spearmanr(units["first"], units["second"]).statistic
        low, high = self.regression.product_interval
        return {
            "network": self.study.network,
            "layer": self.study.layer,
            "units": self.study.n_units,
            "dead": self.study.dead,
            "ablated alone": len(units),
            "rho selectivity": self.selectivity.rho,
            "of preferred class": _rho(units["selectivity"], units["preferred"]),
            "of accuracy": _rho(units["selectivity"], units["accuracy"]),
            "rho activity": _rho(units["mean activity"], units["margin"]),
            "rho product": _rho(units["selectivity x activity"], units["margin"]),
            "rho probe": self.probe.rho,
            "top 10 % shared": self.probe.overlap,
            "reliability": 2 * halves / (1 + halves),
            "selectivity with activity": _rho(units["selectivity"], units["mean activity"]),
            "probe with selectivity": _rho(units["probe"], units["selectivity"]),
            "C0.4": self.curves,
            "groups": self.regression.n,
            "R2 M1": models.loc["M1", "r2"],
            "R2 M2": models.loc["M2", "r2"],
            "R2 M3": models.loc["M3", "r2"],
            "product": self.regression.product,
            "product low": low,
            "product high": high,
            "p": self.regression.p,
            "AIC M1 - M3": self.regression.aic_gain("M1"),
            "AIC M2 - M3": self.regression.aic_gain("M2"),
        }


def layer_figures(study: LayerStudy) -> LayerFigures:
    """Return the rank agreements and the regression of one layer."""
    units = study.units
    return LayerFigures(
        study,
        rank_agreement(units["selectivity"], units["margin"]),
        rank_agreement(units["probe"], units["margin"]),
        interaction_regression(study.groups),
    )


@dataclass(frozen=True, eq=False)
class NetworkFigures:
    """One network's figures with their intervals: means over its layers, and one regression of all its groups."""

    study: NetworkStudy
    layers: tuple[LayerFigures, ...]
    regression: InteractionRegression

    @property
    def selectivity(self) -> tuple[float, Interval]:
        """C0.1: Spearman's rho of selectivity with the deficits of single units."""
        return _mean_rho([layer.selectivity for layer in self.layers])

    @property
    def product(self) -> tuple[float, Interval]:
        """C0.2: the coefficient of the product."""
        return self.regression.product, self.regression.product_interval

    @property
    def probe(self) -> tuple[float, Interval]:
        """C0.3: Spearman's rho of the probe's scores with the deficits of single units."""
        return _mean_rho([layer.probe for layer in self.layers])

    @property
    def overlap(self) -> tuple[float, Interval]:
        """C0.3: shared top 10 % minus what chance shares; exact binomial interval over the top units of all layers."""
        top = np.array([layer.probe.k for layer in self.layers])
        shared = sum(round(layer.probe.overlap * layer.probe.k) for layer in self.layers)
        chance = float(sum(layer.probe.chance * layer.probe.k for layer in self.layers) / top.sum())
        found = stats.binomtest(shared, int(top.sum()))
        low, high = found.proportion_ci(LEVEL)
        return shared / int(top.sum()) - chance, Interval(low - chance, high - chance)

    @property
    def curves(self) -> tuple[float, Interval]:
        """C0.4: deletion area of selectivity x activity minus that of selectivity, over images, mean over layers."""
        return _paired(self.study, "deletion")

    @property
    def gaps(self) -> tuple[float, Interval]:
        """The same of the gap, the headline of our own harness."""
        return _paired(self.study, "gap")


def network_figures(study: NetworkStudy) -> NetworkFigures:
    """Return the figures of one network."""
    groups = pd.concat([layer.groups for layer in study.layers], ignore_index=True)
    return NetworkFigures(study, tuple(map(layer_figures, study.layers)), interaction_regression(groups))


def over_networks(found: Sequence[NetworkFigures]) -> list[Claim]:
    """Return the claims, judged over networks by Student's t, each network one value."""
    if len(found) < 2:
        raise ValueError(f"claims over networks need at least 2 networks; got {len(found)}")
    gains = np.array([one.regression.r2_gain for one in found])
    gaps = np.array([one.gaps[0] for one in found])
    significant = sum(one.regression.p < 0.05 for one in found)
    return [
        _between(
            "C0.1",
            "selectivity alone is a weak predictor of what ablating a unit costs",
            "Spearman's rho of class selectivity with the drop of the margin, single units",
            found,
            "selectivity",
            -WEAK,
            WEAK,
        ),
        _most_layers(found),
        _above_zero(
            "C0.2b",
            "the product adds to both main effects, with a positive sign (the sign is our expectation)",
            "coefficient of the product in M3 > 0, accuracy per squared standard deviation",
            found,
            "product",
            digits=4,
            note=f"permutation p < 0.05 in {significant} of {len(found)} networks (all layers of a network in one "
            "regression, Freedman and Lane within class and layer)",
        ),
        reported(
            "C0.2c",
            "how much the product adds",
            f"R2(M3) - R2(M2); mean over {len(found)} networks",
            figure=with_interval(float(gains.mean()), mean_interval(gains)),
            interval=mean_interval(gains),
        ),
        _between(
            "C0.3a",
            "units that a probe picks and units that ablation picks agree weakly, but above chance",
            "Spearman's rho of the probe's scores with the drop of the margin",
            found,
            "probe",
            0.0,
            WEAK,
        ),
        _above_zero(
            "C0.3b",
            "the top units of probe and ablation overlap above chance",
            "shared part of the two top 10 % minus chance > 0",
            found,
            "overlap",
        ),
        _above_zero(
            "C0.4",
            "ablating the most selective units hurts less than ablating those of highest selectivity x activity",
            "deletion area of selectivity x activity minus that of selectivity > 0",
            found,
            "curves",
            note="of the gap (both ends of the order, our headline) "
            + with_interval(float(gaps.mean()), mean_interval(gaps)),
        ),
    ]


def _most_layers(found: Sequence[NetworkFigures]) -> Claim:
    """Return C0.2a, which counts layers."""
    layers = [layer for one in found for layer in one.layers]
    helps = sum(layer.interaction_helps for layer in layers)
    low, high = stats.binomtest(helps, len(layers)).proportion_ci(LEVEL)
    better = {over: sum(layer.regression.aic_gain(over) > 0 for layer in layers) for over in ("M1", "M2")}
    return judged(
        "C0.2a",
        "an interaction of selectivity and activity predicts deficits of groups better than selectivity alone",
        "AIC(M3) < AIC(M1) and permutation p of the product < 0.05: share of layers above 1/2 (exact binomial "
        "interval over layers, which are not independent)",
        mean=helps / len(layers),
        interval=Interval(low, high),
        threshold=0.5,
        unit="of the layers",
        note=f"{helps} of {len(layers)} layers; AIC(M3) < AIC(M1) alone in {better['M1']}, AIC(M3) < AIC(M2) in "
        f"{better['M2']}",
    )


def _values(found: Sequence[NetworkFigures], figure: str) -> list[float]:
    return [getattr(one, figure)[0] for one in found]


def _above_zero(
    id: str, statement: str, check: str, found: Sequence[NetworkFigures], figure: str, **options: Any
) -> Claim:
    """Return the claim that ``figure`` of the networks is above 0 in the mean."""
    check = f"{check}; mean over {len(found)} networks"
    return judged_over(id, statement, check, _values(found, figure), threshold=0.0, **options)


def _between(
    id: str, statement: str, check: str, found: Sequence[NetworkFigures], figure: str, low: float, high: float
) -> Claim:
    """Return the claim that ``figure`` of the networks lies between two thresholds in the mean."""
    values = np.array(_values(found, figure))
    interval = mean_interval(values)
    check = f"{check}, between {low:g} and {high:g}; mean over {len(found)} networks"
    text = with_interval(float(values.mean()), interval)
    return Claim(id, statement, check, text, interval, high, _within(interval, low, high))


FIGURES = {
    "C0.1 rho, selectivity": ("selectivity", 3),
    "C0.2b product": ("product", 4),
    "C0.3a rho, probe": ("probe", 3),
    "C0.3b overlap beyond chance": ("overlap", 3),
    "C0.4 deletion, difference": ("curves", 3),
}
"""The figures that one network has, and their digits."""


def family_table(found: Sequence[NetworkFigures]) -> pd.DataFrame:
    """Return one row per figure: its mean in each family of networks, and over families with Student's t interval."""
    families = list(dict.fromkeys(one.study.family for one in found))
    rows = []
    for name, (figure, digits) in FIGURES.items():
        means = [np.mean(_values([one for one in found if one.study.family == f], figure)) for f in families]
        over = with_interval(float(np.mean(means)), mean_interval(np.array(means)), digits=digits)
        cells = {f: f"{mean:.{digits}f}" for f, mean in zip(families, means, strict=True)}
        rows.append({"figure": name, **cells, f"mean of {len(families)}": over})
    return pd.DataFrame(rows)


def network_table(found: Sequence[NetworkFigures]) -> pd.DataFrame:
    """Return one row per network: its figure, interval and verdict for each claim that a network can be judged by."""
    judge = {
        "selectivity": lambda interval: _within(interval, -WEAK, WEAK),
        "probe": lambda interval: _within(interval, 0.0, WEAK),
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


def layer_table(found: Sequence[NetworkFigures]) -> pd.DataFrame:
    """Return one row per layer: rank correlations of its units, then the regression of its groups."""
    return pd.DataFrame([layer.row() for one in found for layer in one.layers])


def model_table(found: Sequence[NetworkFigures]) -> pd.DataFrame:
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


def variant_table(found: Sequence[NetworkFigures]) -> pd.DataFrame:
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


def _rho(a: pd.Series, b: pd.Series) -> float:
    known = a.notna() & b.notna()
    return float(stats.spearmanr(a[known], b[known]).statistic)


def _mean_rho(found: Sequence[RankAgreement]) -> tuple[float, Interval]:
    """Return the mean over layers, with the interval of a mean of independent estimates."""
    mean = float(np.mean([one.rho for one in found]))
    widths = np.array([(one.interval.high - one.interval.low) / 2 for one in found])
    half = float(np.sqrt((widths**2).sum())) / len(found)
    return mean, Interval(mean - half, mean + half)


def _difference(study: LayerStudy, areas: str) -> NDArray[np.float64]:
    """Return the areas of selectivity x activity minus those of selectivity, image by image, ``[n]``."""
    by_method = getattr(study, areas)
    return by_method["selectivity x activity"] - by_method["selectivity"]


def _paired(study: NetworkStudy, areas: str) -> tuple[float, Interval]:
    over = np.mean([_difference(layer, areas) for layer in study.layers], axis=0)  # [n]
    return float(over.mean()), mean_interval(over)


def _within(interval: Interval, low: float, high: float) -> Verdict:
    """Return "holds" if the interval lies between the thresholds, "fails" if wholly outside, else "undecided"."""
    if np.isnan(interval).any():
        return "undecided"
    if low < interval.low and interval.high < high:
        return "holds"
    return "fails" if interval.high < low or interval.low > high else "undecided"
