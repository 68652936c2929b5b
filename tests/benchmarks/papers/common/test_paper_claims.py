"""Verdicts follow from intervals alone."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.papers.common import claims
from captum_ablate.statistics.intervals import Interval

numbers = st.floats(-10, 10)


@given(numbers, numbers, numbers)
def test_a_verdict_mirrors_when_everything_is_negated(a: float, b: float, threshold: float) -> None:
    interval, mirrored = Interval(min(a, b), max(a, b)), Interval(-max(a, b), -min(a, b))
    assert claims.verdict(interval, threshold) == claims.verdict(mirrored, -threshold, "below")
    opposite = {"holds": "fails", "fails": "holds", "undecided": "undecided"}
    assert claims.verdict(interval, threshold, "below") == opposite[claims.verdict(interval, threshold)]


def test_a_verdict_needs_the_whole_interval_beyond_the_threshold() -> None:
    assert claims.verdict(Interval(0.1, 0.3), 0.0) == "holds"
    assert claims.verdict(Interval(-0.3, -0.1), 0.0) == "fails"
    assert claims.verdict(Interval(-0.1, 0.3), 0.0) == "undecided"
    assert claims.verdict(Interval(0.0, 0.3), 0.0) == "undecided"
    assert claims.verdict(Interval(math.nan, math.nan), 0.0) == "undecided"
    with pytest.raises(ValueError, match='"above" or "below"; got \'over\''):
        claims.verdict(Interval(0, 1), 0.0, "over")  # type: ignore[arg-type]


def test_seeds_give_students_interval() -> None:
    claim = claims.judged_over("C1", "rises", "mean > 0", [1.0, 2.0, 3.0], threshold=0.0, unit="bits")
    half = 4.302652729911275 / math.sqrt(3)  # t quantile for two degrees of freedom; sd of the values is 1
    assert claim.interval == pytest.approx((2 - half, 2 + half))
    assert claim.verdict == "undecided"
    assert claim.figure == "2.000 [-0.484, 4.484] bits"
    with pytest.raises(FrozenInstanceError):
        claim.verdict = "holds"  # type: ignore[misc]
    assert claims.judged_over("C1", "", "", [1.0], threshold=0.0).verdict == "undecided"  # one seed has no interval


def test_joined_claims_hold_only_together() -> None:
    good = claims.judged_over("a", "", "", [1.0, 1.1, 0.9], threshold=0.0)
    open_ = claims.judged_over("b", "", "", [1.0, -1.1, 0.9], threshold=0.0)
    bad = claims.judged_over("c", "", "", [1.0, 1.1, 0.9], threshold=2.0)
    assert claims.all_of("d", "", "", [good, good]).verdict == "holds"
    assert claims.all_of("d", "", "", [good, open_]).verdict == "undecided"
    joined = claims.all_of("d", "", "", [good, open_, bad])
    assert (joined.verdict, joined.figure) == ("fails", "of 3: 1 holds, 1 fails, 1 undecided")
    with pytest.raises(ValueError, match="at least one part"):
        claims.all_of("d", "", "", [])
