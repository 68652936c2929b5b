"""Estimates from the measurements: rank agreements, regressions and areas, by layer and by network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from benchmarks.papers.hayne.protocol import LayerStudy, NetworkStudy
from captum_ablate import interaction_regression, rank_agreement
from captum_ablate.statistics.intervals import LEVEL, Interval, mean_interval
from captum_ablate.studies import InteractionRegression, RankAgreement


@dataclass(frozen=True, eq=False)
class LayerEstimates:
    """The estimates of one layer."""

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
        """Return the row of the layer in the table of layers."""
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


def layer_estimates(study: LayerStudy) -> LayerEstimates:
    """Return the rank agreements and the regression of one layer."""
    units = study.units
    return LayerEstimates(
        study,
        rank_agreement(units["selectivity"], units["margin"]),
        rank_agreement(units["probe"], units["margin"]),
        interaction_regression(study.groups),
    )


@dataclass(frozen=True, eq=False)
class NetworkEstimates:
    """The estimates of one network with their intervals: means over its layers, and a regression of all its groups."""

    study: NetworkStudy
    layers: tuple[LayerEstimates, ...]
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
        """The same for the gap, the headline of our own harness."""
        return _paired(self.study, "gap")


def network_estimates(study: NetworkStudy) -> NetworkEstimates:
    """Return the estimates of one network."""
    groups = pd.concat([layer.groups for layer in study.layers], ignore_index=True)
    return NetworkEstimates(study, tuple(map(layer_estimates, study.layers)), interaction_regression(groups))


def values_of(found: Sequence[NetworkEstimates], name: str) -> list[float]:
    """Return the estimate called ``name`` of each network, without its interval."""
    return [getattr(one, name)[0] for one in found]


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
    """Return the areas of selectivity x activity minus those of selectivity, by image, ``[n]``."""
    by_method = getattr(study, areas)
    return by_method["selectivity x activity"] - by_method["selectivity"]


def _paired(study: NetworkStudy, areas: str) -> tuple[float, Interval]:
    """Return the mean difference of areas and its interval over images, layers averaged first."""
    over = np.mean([_difference(layer, areas) for layer in study.layers], axis=0)  # [n]
    return float(over.mean()), mean_interval(over)
