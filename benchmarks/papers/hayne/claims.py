"""The four claims of Hayne et al., judged over networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.papers.common.claims import Claim, Verdict, judged, judged_over, reported, with_interval
from benchmarks.papers.hayne.estimates import NetworkEstimates, values_of
from captum_ablate.statistics.intervals import LEVEL, Interval, mean_interval

WEAK = 0.5
"""A rank correlation below this is weak: our threshold."""


def over_networks(found: Sequence[NetworkEstimates]) -> list[Claim]:
    """Return the claims, judged over networks by Student's t interval, one value per network."""
    if len(found) < 2:
        raise ValueError(f"claims over networks need at least 2 networks; got {len(found)}")
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
        *_product(found),
        *_probe(found),
        _order(found),
    ]


def _product(found: Sequence[NetworkEstimates]) -> list[Claim]:
    """Return C0.2: the product of selectivity and activity in regressions of groups."""
    gains = np.array([one.regression.r2_gain for one in found])
    significant = sum(one.regression.p < 0.05 for one in found)
    return [
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
    ]


def _probe(found: Sequence[NetworkEstimates]) -> list[Claim]:
    """Return C0.3: the units of a linear probe against the units of ablation."""
    return [
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
    ]


def _order(found: Sequence[NetworkEstimates]) -> Claim:
    """Return C0.4: the product as an order of ablation."""
    gaps = np.array(values_of(found, "gaps"))
    return _above_zero(
        "C0.4",
        "ablating the most selective units hurts less than ablating those of highest selectivity x activity",
        "deletion area of selectivity x activity minus that of selectivity > 0",
        found,
        "curves",
        note="of the gap (both ends of the order, our headline) "
        + with_interval(float(gaps.mean()), mean_interval(gaps)),
    )


def _most_layers(found: Sequence[NetworkEstimates]) -> Claim:
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


def _above_zero(
    id: str, statement: str, check: str, found: Sequence[NetworkEstimates], figure: str, **options: Any
) -> Claim:
    """Return the claim that ``figure`` of the networks is above 0 in the mean."""
    check = f"{check}; mean over {len(found)} networks"
    return judged_over(id, statement, check, values_of(found, figure), threshold=0.0, **options)


def _between(
    id: str, statement: str, check: str, found: Sequence[NetworkEstimates], figure: str, low: float, high: float
) -> Claim:
    """Return the claim that ``figure`` of the networks lies between two thresholds in the mean."""
    values = np.array(values_of(found, figure))
    interval = mean_interval(values)
    check = f"{check}, between {low:g} and {high:g}; mean over {len(found)} networks"
    text = with_interval(float(values.mean()), interval)
    return Claim(id, statement, check, text, interval, high, within(interval, low, high))


def within(interval: Interval, low: float, high: float) -> Verdict:
    """Return "holds" if the interval lies between the thresholds, "fails" if wholly outside, else "undecided"."""
    if np.isnan(interval).any():
        return "undecided"
    if low < interval.low and interval.high < high:
        return "holds"
    return "fails" if interval.high < low or interval.low > high else "undecided"
