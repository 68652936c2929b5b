"""Comparisons on several networks: means held against plain loops, and what may not be averaged."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from scipy import stats
from torch import nn

from captum_ablate import Combined, CumulativeAblationEvaluator, LayerMeanActivity, combine
from captum_ablate.evaluation.across_networks import AcrossNetworks

METHODS = ["activity", "backwards", "by number", "flat"]


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def compared(seed, layer="1", reference="zero", metric="logit", steps=8, also=(), without=()):
    model, generator = network(seed), torch.Generator().manual_seed(100 + seed)
    x, rank = torch.randn(30, 5, generator=generator), torch.randn(30, 5, generator=generator)
    y, labels = (model(z).detach().argmax(1) for z in (x, rank))
    scores = LayerMeanActivity(model, layer).attribute(rank, target=labels)
    methods = dict(zip(METHODS, (scores, -scores, torch.arange(8.0), torch.zeros(8)), strict=True))
    methods = {name: one for name, one in methods.items() if name not in without} | dict.fromkeys(also, scores)
    evaluator = CumulativeAblationEvaluator(model, layer, reference=reference, metric=metric, steps=steps, n_random=0)
    return evaluator.compare(methods, (x, y), ranking_data=(rank, labels))


@pytest.fixture(scope="module")
def one_layer():
    return {f"net {seed}": compared(seed) for seed in range(6)}


@pytest.fixture(scope="module")
def two_layers():
    return {f"net {seed}": [compared(seed, layer) for layer in ("1", "3")] for seed in range(5)}


def slow_ranks(comparison):
    """The place of each method: one more than the larger gaps, and half a place for each equal one."""
    gaps = {name: comparison[name].gap for name in METHODS}
    return {
        a: 1 + sum(g > gap + 1e-12 for g in gaps.values()) + (sum(abs(g - gap) <= 1e-12 for g in gaps.values()) - 1) / 2
        for a, gap in gaps.items()
    }


def slow_rank_interval(name, layers_of):
    """Student's with two deviations more of the mean spread, a place at least, as far as there are such ranks."""
    table = [[sum(slow_ranks(c)[m] for c in layers) / len(layers) for layers in layers_of] for m in METHODS]
    n = len(layers_of)
    spreads = [sum((r - sum(row) / n) ** 2 for r in row) / (n - 1) for row in table]
    extra = 2 * max(sum(spreads) / len(spreads), 1) / (n - 1)
    own = METHODS.index(name)
    half = stats.t.ppf(0.975, n - 1) * ((spreads[own] + extra) / n) ** 0.5
    mean = sum(table[own]) / n
    return max(mean - half, 1), min(mean + half, len(METHODS))


def slow_best(comparison):
    """The methods whose rank range begins with 1."""
    ranges = oracles.rank_ranges([comparison[name].gap_areas.tolist() for name in METHODS])
    return [name for name, (low, _) in zip(METHODS, ranges, strict=True) if low == 1]


def test_ranks_and_gaps_are_means_over_networks(one_layer):
    board = combine(one_layer).leaderboard.set_index("method")
    assert board["gap"].is_monotonic_decreasing
    for name in METHODS:
        ranks = [slow_ranks(one)[name] for one in one_layer.values()]
        gaps = [one[name].gap for one in one_layer.values()]
        row = board.loc[name]
        assert row["mean_rank"] == pytest.approx(sum(ranks) / 6)
        assert row["gap"] == pytest.approx(sum(gaps) / 6)
        assert (row["mean_rank_low"], row["mean_rank_high"]) == pytest.approx(
            slow_rank_interval(name, [[one] for one in one_layer.values()])
        )
        assert (row["gap_low"], row["gap_high"]) == pytest.approx(oracles.student_interval(gaps))
        assert (row["best"], row["comparisons"]) == (sum(name in slow_best(one) for one in one_layer.values()), 6)


def test_rank_ranges_are_those_of_paired_t_tests_over_networks(one_layer):
    board = combine(one_layer).leaderboard.set_index("method")
    ranges = oracles.rank_ranges([[one[name].gap for one in one_layer.values()] for name in METHODS])
    for name, (low, high) in zip(METHODS, ranges, strict=True):
        assert board.loc[name, "rank"] == (str(low) if low == high else f"{low}-{high}")


def test_the_layers_of_a_network_count_once(two_layers):
    board = combine(two_layers).leaderboard.set_index("method")
    assert "gap" not in board
    assert board["mean_rank"].is_monotonic_increasing
    for name in METHODS:
        ranks = [sum(slow_ranks(one)[name] for one in layers) / 2 for layers in two_layers.values()]
        assert board.loc[name, "mean_rank"] == pytest.approx(sum(ranks) / 5)
        low, high = board.loc[name, ["mean_rank_low", "mean_rank_high"]]
        assert (low, high) == pytest.approx(slow_rank_interval(name, [*two_layers.values()]))
    best = {name: sum(name in slow_best(one) for layers in two_layers.values() for one in layers) for name in METHODS}
    assert board["best"].to_dict() == best
    assert set(board["comparisons"]) == {10}


def test_a_network_with_more_layers_weighs_no_more(one_layer):
    uneven = {**one_layer, "net 0": [one_layer["net 0"]] * 3}
    again, once = combine(uneven).leaderboard, combine(one_layer).leaderboard
    np.testing.assert_allclose(again["gap"], once["gap"])
    np.testing.assert_allclose(again["mean_rank"], once["mean_rank"])


def test_versus_is_of_gaps_within_one_setting_and_of_ranks_across(one_layer, two_layers):
    apart = [one["activity"].gap - one["backwards"].gap for one in one_layer.values()]
    found, expected = combine(one_layer).versus("activity", "backwards"), stats.ttest_1samp(apart, 0)
    assert found.value == pytest.approx(sum(apart) / 6)
    assert found.interval == pytest.approx(expected.confidence_interval(0.95))
    assert found.p_raw == pytest.approx(expected.pvalue)
    assert found.p >= found.p_raw
    places = [
        np.mean([slow_ranks(one)["backwards"] - slow_ranks(one)["activity"] for one in layers])
        for layers in two_layers.values()
    ]
    assert combine(two_layers).versus("activity", "backwards").value == pytest.approx(np.mean(places))
    with pytest.raises(KeyError, match="'other' is not in all comparisons; there are 'activity'"):
        combine(one_layer).versus("activity", "other")


def test_below_5_networks_nothing_is_told_apart(one_layer):
    few = combine({name: one_layer[name] for name in list(one_layer)[:4]})
    assert set(few.leaderboard["rank"]) == {"1-4"}
    assert few.leaderboard[["gap_low", "gap_high", "mean_rank_low", "mean_rank_high"]].isna().all(axis=None)
    one = few.versus("activity", "backwards")
    assert all(math.isnan(number) for number in (*one.interval, one.p_raw, one.p))
    assert "4 networks: intervals and ranks over networks need 5" in str(few)
    assert "nan" not in str(few)


def test_references_and_metrics_are_never_averaged(one_layer):
    mean = {f"net {seed}": compared(seed, reference="mean") for seed in range(6)}
    both = combine({name: [one_layer[name], mean[name]] for name in mean})
    board = both.leaderboard
    for reference, alone in (("zero", one_layer), ("mean", mean)):
        rows = board[board["reference"] == reference].reset_index(drop=True)
        assert rows.equals(combine(alone).leaderboard)
    with pytest.raises(
        ValueError, match="reference=None, metric=None name 2 blocks, and must name one; there are zero"
    ):
        both.versus("activity", "flat")
    assert both.versus("activity", "flat", reference="mean") == combine(mean).versus("activity", "flat")
    tau = stats.kendalltau(*(_mean_ranks(combine(one)) for one in (one_layer, mean))).statistic
    np.testing.assert_allclose(both.agreement(), [[1, tau], [tau, 1]])
    assert f"zero reference, logit and mean reference, logit order methods with Kendall's tau {tau:.2f}" in str(both)
    mixed = combine({"a": compared(0), "b": compared(1, metric="margin")})
    assert "Kendall" not in str(mixed)
    assert mixed.leaderboard["metric"].tolist() == ["logit"] * 4 + ["margin"] * 4


def _mean_ranks(combined):
    return combined.leaderboard.set_index("method").loc[METHODS, "mean_rank"]


def block(reference, gaps):
    """One reference over six networks, with these mean gaps."""
    rng, rows = np.random.default_rng(0), []
    for k in range(6):
        own = {name: gap + rng.normal(0, 0.01) for name, gap in gaps.items()}
        for name, gap in own.items():
            rank = 1.0 + sum(other > gap for other in own.values())
            about = {"network": f"net {k}", "layer": "1", "method": name, "rank": rank, "gap": gap}
            rows.append(about | {"is_best": rank == 1})
    return AcrossNetworks(reference, "logit", pd.DataFrame(rows), True, [])


def test_references_that_disagree_are_said():
    zero, mean, close = (
        block(name, gaps)
        for name, gaps in {"zero": {"a": 1, "b": 0}, "mean": {"a": 0, "b": 1}, "tensor": {"a": 2, "b": 1}}.items()
    )
    (note,) = Combined((zero, mean)).notes
    assert note == (
        "zero reference, logit and mean reference, logit order methods with Kendall's tau -1.00; they disagree: no "
        "method is among the best under both"
    )
    assert note in str(Combined((zero, mean)))
    (agreed,) = Combined((zero, close)).notes
    assert agreed.endswith("tau 1.00")


def test_a_winner_needs_two_references(one_layer):
    alone = combine(one_layer)
    assert "A winner needs a second reference." in alone.verdict
    mean = {name: compared(seed, reference="mean") for seed, name in enumerate(one_layer)}
    both = combine({name: [one_layer[name], mean[name]] for name in mean})
    best = [set(block.best) for block in both.blocks]
    common = best[0] & best[1]
    if len(common) == 1:
        assert both.verdict == f"{common.pop()} finds the units best, under zero and mean."
    else:
        assert ("cannot tell which of" in both.verdict) == bool(common)
    assert str(both).startswith(both.verdict)


def test_methods_that_are_not_in_all_comparisons_are_left_out_and_named(one_layer):
    combined = combine({**one_layer, "net 0": compared(0, also=["new"]), "net 1": compared(1, without=["flat"])})
    assert sorted(combined.leaderboard["method"]) == ["activity", "backwards", "by number"]
    assert "left out, not in all comparisons: flat and new" in combined.notes
    with pytest.raises(
        ValueError, match="no method is in all comparisons with zero reference and logit; there are a: "
    ):
        combine({"a": compared(0, without=METHODS[1:]), "b": compared(1, without=METHODS[:1])})


def test_other_layers_or_steps_are_another_setting(one_layer):
    for other in (compared(0, steps=5), compared(0, layer="3")):
        combined = combine({**one_layer, "net 0": other})
        assert "gap" not in combined.leaderboard
        assert "2 settings (layers, units, steps): ranks are averaged, gaps do not compare" in combined.notes


def test_one_network_under_two_names_is_suspected(one_layer):
    twice = combine({**one_layer, "copy": compared(2)})
    assert "net 2 and copy have the same results: is it one network, counted twice?" in twice.notes
    assert not combine(one_layer).notes


def test_the_frame_has_a_row_per_comparison_and_method(two_layers):
    frame = combine(two_layers).to_frame()
    assert len(frame) == 5 * 2 * 4
    for row in frame.to_dict("records"):
        one = two_layers[row["network"]][0 if row["layer"] == "1" else 1]
        assert row["gap"] == pytest.approx(one[row["method"]].gap)
        assert row["rank"] == slow_ranks(one)[row["method"]]
        assert row["is_best"] == (row["method"] in slow_best(one))
    assert set(frame["reference"]) == {"zero"}


def test_latex_has_a_table_for_each_block_and_the_best_in_bold(one_layer):
    combined = combine({**one_layer, "net 9": [compared(9), compared(9, reference="mean")]})
    text = combined.to_latex()
    assert text.count(r"\begin{tabular}{llrrr}") == 2
    assert r"rank & method & mean rank [95\,\%]" in text
    assert text.startswith("% zero reference, logit: 7 networks, 7 comparisons\n")
    assert text.count("\n% mean reference, logit: 1 network, 1 comparison\n") == 1
    rows = [line for line in text.split("% mean")[0].splitlines() if line.count("&") == 4][1:]
    board = combined.leaderboard[combined.leaderboard["reference"] == "zero"]
    for line, rank in zip(rows, board["rank"], strict=True):
        assert line.startswith(r"\textbf{") == (rank.split("-")[0] == "1")


def test_the_plot_has_a_dot_per_network_and_a_mean_per_method(one_layer, two_layers):
    ax = Figure().subplots()
    combined = combine(one_layer)
    assert combined.plot(ax) is ax
    assert [tick.get_text() for tick in ax.get_yticklabels()] == combined.leaderboard["method"].tolist()
    small = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 6]
    for name in METHODS:
        assert any(np.allclose(x, [slow_ranks(one)[name] for one in one_layer.values()]) for x in small)
    both = {name: [*layers, compared(k, reference="mean")] for k, (name, layers) in enumerate(two_layers.items())}
    legend = combine(both).plot(Figure().subplots()).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["zero reference, logit", "mean reference, logit"]


def test_the_report_is_one_page_with_verdict_tables_and_picture(one_layer, tmp_path):
    combined = combine(one_layer)
    page = combined.report(tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert combined.verdict in page
    assert page.count("<figure>") == 1
    assert all(name in page for name in METHODS)


def test_a_notebook_shows_every_block(one_layer):
    page = combine({"a": [compared(0), compared(0, reference="mean")]})._repr_html_()
    assert page.count("<table>") == 2
    assert "1 network: intervals and ranks over networks need 5" in page


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, ValueError, "no comparisons to combine"),
        ({"a": []}, ValueError, "no comparisons to combine"),
        ([1], TypeError, "must be a mapping of network names; got list"),
        ({"a": [3]}, TypeError, "must map names to a Comparison or a list of them; got 'a': "),
        ({"a": 3}, TypeError, "must map names to a Comparison or a list of them; got 'a': 3"),
    ],
)
def test_what_is_no_comparison_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        combine(given)


def test_only_networks_repeat(one_layer):
    with pytest.raises(ValueError, match="across must be 'network'; got 'layer'"):
        combine(one_layer, across="layer")
