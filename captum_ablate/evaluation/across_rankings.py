"""Hold a curve against one of another comparison: rankings on other data, evaluated on the same samples."""

from __future__ import annotations

from typing import Any

import torch

from captum_ablate.evaluation.curve import DeficitCurve
from captum_ablate.evaluation.pairs import Difference, difference_span
from captum_ablate.evaluation.provenance import Provenance
from captum_ablate.statistics.ranking_noise import RankingNoise, interval_with, paired_p_with


def difference(one: DeficitCurve, other: DeficitCurve) -> Difference:
    """Return the gap of ``one`` minus that of ``other``: samples are paired, the noise of two ranking sets is added.

    Resamples of the same ranking data are paired, too.

    Raises:
        ValueError: if the curves are of other samples, or of another setting, or samples were drawn ``until``.
    """
    _check(one, other)
    apart = one.gap_areas.numpy() - other.gap_areas.numpy()
    noise = _noise(one, other)
    span = difference_span(one)
    p = paired_p_with(noise, apart, span)
    return Difference(float(apart.mean()), interval_with(noise, apart, span), p, p)


def _noise(one: DeficitCurve, other: DeficitCurve) -> RankingNoise:
    first, second = one.resampled_gap_areas.numpy(), other.resampled_gap_areas.numpy()
    if _same_ranking_data(one.provenance, other.provenance) and first.shape == second.shape:
        return RankingNoise.of(first - second)
    return RankingNoise.of(first) + RankingNoise.of(second)


def _same_ranking_data(one: Provenance, other: Provenance) -> bool:
    """Tell whether the same resamples of the same data were ranked on."""
    return one.ranking_digest is not None and _resamples(one) == _resamples(other)


def _resamples(provenance: Provenance) -> tuple[Any, ...]:
    return provenance.ranking_digest, provenance.seed, provenance.ranking_resamples


def _check(one: DeficitCurve, other: DeficitCurve) -> None:
    for name in ("layers", "reference", "metric"):
        own, theirs = getattr(one.provenance, name), getattr(other.provenance, name)
        if own != theirs:
            raise ValueError(f"gaps compare within one setting; the {name} are {own} here and {theirs} in the other")
    if len(one.n_ablated) != len(other.n_ablated):
        raise ValueError(
            f"gaps compare on one grid of steps; the curves have {len(one.n_ablated) - 1} and "
            f"{len(other.n_ablated) - 1} steps"
        )
    apart = float((one.fraction - other.fraction).abs().max())
    if apart > 1 / min(len(one.order), len(other.order)):  # equal steps of other numbers of live units round apart
        raise ValueError(
            "gaps compare on one grid of steps; the curves have the steps "
            f"{one.n_ablated[1:].tolist()} of {len(one.order)} units, and {other.n_ablated[1:].tolist()} of "
            f"{len(other.order)}"
        )
    learned = {"mean", "resample"} & set(one.provenance.reference.split(" + "))
    of_equal_units = torch.equal(one.order.sort().values, other.order.sort().values)
    if not learned and of_equal_units and one.values.shape == other.values.shape:
        _check_reference(one, other)
    if one.sampled is not None or other.sampled is not None:
        raise ValueError("curves of two comparisons have no common samples where they were drawn until a precision")
    digests = one.provenance.evaluation_digest, other.provenance.evaluation_digest
    if None not in digests and digests[0] != digests[1]:
        raise ValueError(
            "gaps are paired by sample, and the two comparisons are on other samples; evaluate on the same"
        )
    if not (torch.equal(one.target, other.target) and torch.equal(one.values[0], other.values[0])):
        raise ValueError(
            "gaps are paired by sample, and the two comparisons have other samples, or the same in another order; "
            "evaluate both on the same data, not shuffled"
        )


def _check_reference(one: DeficitCurve, other: DeficitCurve) -> None:
    """Raise if the same samples have other values with the same units ablated: references of one name differ."""
    samples = torch.equal(one.target, other.target) and torch.equal(one.values[0], other.values[0])
    if samples and not torch.allclose(one.values[-1], other.values[-1], rtol=1e-3, atol=1e-3):
        raise ValueError(
            f"gaps compare within one setting; the references are both called {one.provenance.reference!r}, and with "
            "all units ablated the samples have other values"
        )
