"""Pairs of methods, the verdict in words and the LaTeX table."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from captum_ablate import CumulativeAblationEvaluator, LayerUnitAblation
from captum_ablate.evaluation.pairs import Pairs


def better_of(values):
    """Which row's mean is above which column's, for ``values [methods, n]``."""
    return Pairs([str(k) for k in range(len(values))], values, None).better


@given(st.integers(1, 7), st.integers(2, 30), st.integers(0, 1000), st.floats(0, 3))
@settings(deadline=None, max_examples=60)
def test_better_is_holms_over_paired_t_tests(methods, n, seed, spread):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(1, n)) + rng.normal(size=(methods, n)) + spread * rng.normal(size=(methods, 1))
    better = better_of(values)
    ranges = [(1 + better[:, m].sum(), methods - better[m].sum()) for m in range(methods)]
    assert ranges == oracles.rank_ranges(values.tolist())


def test_equal_methods_are_never_told_apart_and_a_constant_lead_of_many_samples_is():
    values = np.random.default_rng(0).normal(size=(1, 20)).repeat(3, axis=0)
    assert not better_of(values).any()
    values = np.stack([values[0], values[0] + 0.5])
    np.testing.assert_array_equal(better_of(values), [[False, False], [True, False]])


def test_a_difference_says_whether_its_p_is_corrected():
    gaps = np.random.default_rng(1).normal(size=(3, 30)) + np.array([[0.0], [0.4], [0.8]])
    three, two = (Pairs([*"abc"][:k], gaps[:k], None) for k in (3, 2))
    assert re.fullmatch(
        r"Difference\(-[\d.]+ \[-[\d.]+, -?[\d.]+\], p [\d.]+, p_raw [\d.]+\)", repr(three.difference(0, 1))
    )
    assert "p_raw" not in repr(two.difference(0, 1))
    assert repr(two.difference(0, 0)).endswith(", no p)")


def test_two_samples_without_spread_decide_nothing():
    assert not better_of(np.array([[0.5, 0.5], [0.4, 0.4]])).any()


def test_one_sample_tells_no_methods_apart():
    assert not better_of(np.array([[0.0], [5.0]])).any()


def test_holm_keeps_the_share_of_false_alarms_over_all_pairs_below_5_percent():
    rng = np.random.default_rng(5)
    alarms = [better_of(rng.normal(size=(5, 25))).any() for _ in range(2000)]
    assert 0.01 < np.mean(alarms) < 0.065


def test_a_difference_of_a_metric_without_bounds_is_that_of_the_paired_t_test():
    gaps = np.random.default_rng(0).normal(size=(2, 30))
    found = Pairs(["a", "b"], gaps, None).difference(0, 1)
    expected = stats.ttest_rel(*gaps)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.p_raw == pytest.approx(expected.pvalue)


def test_a_difference_of_a_bounded_metric_is_that_of_the_bounded_interval(comparison):
    a, b = "conductance", "backwards"
    apart = (comparison[a].gap_areas - comparison[b].gap_areas).numpy()
    found = comparison.versus(a, b)
    assert found.value == pytest.approx(comparison[a].gap - comparison[b].gap)
    assert found.interval == pytest.approx(oracles.bounded_interval(apart.tolist(), 2))
    assert found.p_raw == pytest.approx(oracles.bounded_p(apart.tolist(), 2))
    back = comparison.versus(b, a)
    assert (back.value, back.p_raw, back.p) == (-found.value, found.p_raw, found.p)
    with pytest.raises(KeyError, match="not applicable"):
        comparison.versus(a, "LRP")


def test_all_pairs_stand_in_one_frame_with_holms_p(comparison):
    frame = comparison.pairwise()
    assert len(frame) == 10
    assert (frame["difference"] >= 0).all()
    best_first = comparison.leaderboard["method"].tolist()
    assert list(zip(frame["method"], frame["other"], strict=True)) == list(combinations(best_first, 2))
    np.testing.assert_allclose(frame["p"], oracles.holm(frame["p_raw"].tolist()))
    for row in frame.to_dict("records"):
        one = comparison.versus(row["method"], row["other"])
        assert (row["difference"], row["p"]) == (one.value, one.p)


def scored(model, data, scores, **options):
    rank = (torch.randn(40, 5), torch.arange(40) % 3)
    return CumulativeAblationEvaluator(model, "1", steps=4, **options).compare(scores, data, ranking_data=rank)


def test_the_verdict_names_the_best_and_its_lead(setting):
    model, data, _ = setting
    best = LayerUnitAblation(model, "1", metric="logit").attribute(data[0], target=data[1])
    comparison = scored(model, data, {"good": best, "bad": -best}, metric="logit", n_random=10)
    lead = comparison.versus("good", "bad")
    assert re.fullmatch(
        r"good finds the units best in these rankings: gap [\d.]+ \[[\d.]+, [\d.]+\], "
        r"[\d.]+ \[[\d.]+, [\d.]+\] above bad, p \S+\. "
        r"\d of 2 methods beats? random orders \(5 %, corrected for the number of methods\)\.",
        comparison.verdict,
    )
    assert f"{lead.value:.3f}" in comparison.verdict


def test_the_verdict_says_what_the_data_cannot_tell(setting):
    model, data, _ = setting
    same = torch.arange(8.0)
    comparison = scored(model, data, {"a": same, "b": same * 2}, n_random=0)
    assert comparison.verdict == "The data cannot tell which of a and b finds the units best in these rankings."
    many = scored(model, data, {str(k): same * (k + 1) for k in range(9)}, n_random=0)
    assert "cannot tell which of 0, 1, 2, 3, 4 and 4 more finds the units best" in many.verdict


def test_the_verdict_on_one_method_is_of_chance_alone(setting):
    model, data, _ = setting
    comparison = scored(model, data, {"a": torch.arange(8.0)}, n_random=10)
    assert re.match(r"a has a gap -?[\d.]+ \[", comparison.verdict)
    assert re.search(r"It (beats|does not beat) random orders", comparison.verdict)


def test_latex_has_the_printed_columns_and_the_best_in_bold(comparison):
    text = comparison.to_latex()
    around = [line[2:] for line in text.splitlines() if line.startswith("% ")]
    printed = str(comparison).splitlines()
    assert around == [*printed[: 1 + len(comparison.notes)], *printed[-2:]]
    lines = text.splitlines()[len(around) :]
    assert lines[0] == r"\begin{tabular}{llrrrrr}"
    assert lines[2].startswith(
        r"rank of these orders & method & gap [95\,\% for these rankings] & z & p & deletion & insertion"
    )
    rows = lines[4:-2]
    assert len(rows) == len(comparison)
    for row, line in zip(comparison.leaderboard.to_dict("records"), rows, strict=True):
        assert line.startswith(r"\textbf{\boldmath ") == (row["rank"].split("-")[0] == "1")
        assert line.count("&") == 6
        assert f"${row['gap']:.3f}$" in line


def test_latex_escapes_what_users_name(setting):
    model, data, _ = setting
    name = r"50 % of $x_1$ & {y} \ ~^#<>"
    text = scored(model, data, {name: torch.arange(8.0)}, n_random=0).to_latex()
    assert r"50 \% of \$x\_1\$ \& \{y\} \textbackslash{} \textasciitilde{}\textasciicircum{}\#" in text
