"""Rank agreement against scipy, counting by hand and its laws."""

from __future__ import annotations

from itertools import combinations

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from captum_ablate.studies import rank_agreement

matplotlib.use("Agg")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=4, max_size=40))
def test_rho_is_spearmans(pairs):
    a, b = np.array(pairs, dtype=float).T
    if len(set(a)) == 1 or len(set(b)) == 1:
        return
    assert rank_agreement(a, b, resamples=2).rho == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_overlap_and_its_p_are_those_of_counting():
    """6 units, tops of 2: of the 15 pairs that chance may draw, 1 shares both, 8 share one."""
    found = rank_agreement([9, 8, 1, 2, 3, 4], [9, 1, 8, 2, 3, 4], top=2 / 6, resamples=10)
    assert (found.k, found.overlap, found.chance) == (2, 0.5, pytest.approx(1 / 3))
    pairs = list(combinations(range(6), 2))
    assert found.overlap_p == pytest.approx(sum(bool({0, 1} & {*pair}) for pair in pairs) / len(pairs))


def test_the_same_scores_agree_wholly_and_reversed_ones_not_at_all():
    scores = torch.randn(50, dtype=torch.float64)
    same = rank_agreement(scores, 3 * scores + 1)
    assert same.rho == pytest.approx(1)
    np.testing.assert_allclose(same.interval, [1, 1])
    assert (same.overlap, same.overlap_interval.high) == (1, 1)
    assert same.overlap_interval.low > same.chance
    against = rank_agreement(scores, -scores)
    assert against.rho == pytest.approx(-1)
    assert (against.overlap, against.overlap_interval.low, against.overlap_p) == (0, 0, pytest.approx(1))


def test_the_overlap_interval_excludes_chance_where_fishers_exact_test_rejects():
    """Both are exact at 5 % two-sided: the interval by tails of 2.5 %."""
    for shared in range(11):
        n, k = 100, 10
        a, b = np.zeros(n), np.zeros(n)
        a[:k] = b[k - shared : 2 * k - shared] = 1
        a += np.linspace(0, 0.1, n)
        b += np.linspace(0, 0.1, n)[::-1]
        found = rank_agreement(a, b, resamples=2)
        assert found.overlap == shared / k
        above = stats.hypergeom.sf(shared - 1, n, k, k)
        assert (found.overlap_interval.low > found.chance) == (above < 0.025)
        assert found.overlap_p == pytest.approx(above)
        assert found.overlap_interval.low <= found.overlap <= found.overlap_interval.high


def test_unrelated_scores_are_covered_by_their_intervals():
    random = np.random.default_rng(0)
    found = [rank_agreement(*random.normal(size=(2, 80)), resamples=300) for _ in range(100)]
    assert 86 <= sum(one.interval.low <= 0 <= one.interval.high for one in found) <= 100
    assert sum(one.overlap_interval.low <= one.chance <= one.overlap_interval.high for one in found) >= 90
    assert np.mean([one.overlap for one in found]) == pytest.approx(0.1, abs=0.03)


def test_ties_at_the_edge_of_the_top_are_broken_at_random():
    scores = np.r_[np.ones(40), np.zeros(40)]
    deficits = np.linspace(1, 0, 80)
    overlaps = {rank_agreement(scores, deficits, seed=seed, resamples=2).overlap for seed in range(20)}
    assert len(overlaps) > 1


def test_the_frame_and_the_plot_say_what_was_found():
    found = rank_agreement(np.arange(30.0), np.arange(30.0) ** 2, resamples=20)
    row = found.to_frame().iloc[0]
    assert (row["units"], row["k"], row["overlap"], row["chance"]) == (30, 3, 1, 0.1)
    ax = found.plot(names=("probe", "ablation"))
    assert ax.get_xlabel() == "rank by probe (1 = top)"
    assert [len(line.get_xdata()) for line in ax.lines] == [27, 3]
    assert "rho 1.000" in repr(found)


@pytest.mark.parametrize(
    ("a", "b", "options", "message"),
    [
        ([1, 2, 3, 4], [1, 2, 3], {}, "scores and deficits must be of the same units; got 4 and 3"),
        ([1, 2, 3], [1, 2, 3], {}, "at least 4 units are needed to compare two rankings; got 3"),
        ([1, 2, 3, np.nan], [1, 2, 3, 4], {}, "scores must be finite"),
        ([1, 2, 3, 4], [0, 0, 0, 0], {}, "deficits must differ between units, or there is no ranking; all are 0"),
        ([[1, 2, 3, 4]], [1, 2, 3, 4], {}, r"scores must have one value for each unit, \[units\]; got shape \(1, 4\)"),
        ([1, 2, 3, 4], [1, 2, 3, 4], {"top": 1}, "top must be a share of the units between 0 and 1; got 1"),
    ],
)
def test_bad_scores_are_refused(a, b, options, message):
    with pytest.raises(ValueError, match=message):
        rank_agreement(a, b, **options)
