"""A comparison as a result: found by name, framed, correlated, plotted, reported, and frozen."""

from __future__ import annotations

import math
import re
from dataclasses import FrozenInstanceError

import matplotlib as mpl
import numpy as np
import oracles
import pandas as pd
import pytest
import torch
from all_kinds import compared
from matplotlib.figure import Figure
from scipy.stats import kendalltau

from captum_ablate import Comparison, CumulativeAblationEvaluator
from captum_ablate.evaluation import plots
from captum_ablate.evaluation.comparison import RandomOrders

mpl.use("Agg")


def test_a_method_is_found_by_name_or_its_absence_explained(comparison):
    assert comparison["tied"] is comparison.curves["tied"]
    with pytest.raises(KeyError, match=r"'LRP' is not applicable: LayerLRP has no rule for ReLU"):
        comparison["LRP"]
    with pytest.raises(KeyError, match=r"no method 'SHAP'; there are 'random 1', 'conductance'"):
        comparison["SHAP"]


def test_the_frame_is_long(comparison):
    frame = comparison.to_frame()
    assert len(frame) == 5 * 2 * 5
    assert {"method", "direction", "n_ablated", "fraction", "score", "low", "high"} <= set(frame.columns)
    for name, curve in comparison.curves.items():
        rows = frame[(frame["method"] == name) & (frame["direction"] == "ascending")]
        np.testing.assert_allclose(rows["score"], curve.ascending_score)
        assert rows["n_ablated"].tolist() == [0, 2, 4, 6, 8]
    assert frame.index.is_unique


def test_rank_correlation_is_scipys_tau_b(comparison):
    tau = comparison.rank_correlation()
    names = list(comparison.curves)
    assert list(tau.index) == list(tau.columns) == names
    for a in names:
        for b in names:
            expected = kendalltau(comparison[a].scores, comparison[b].scores, variant="b").statistic
            assert tau.loc[a, b] == pytest.approx(expected, abs=1e-12)
    assert tau.loc["mean activity", "backwards"] == pytest.approx(-1)
    pd.testing.assert_frame_equal(tau, tau.T)


def test_rank_correlation_with_a_constant_is_unknown(setting):
    model, data, _ = setting
    comparison = CumulativeAblationEvaluator(model, "1", n_random=0, steps=1).compare(
        {"a": torch.arange(8.0), "flat": torch.zeros(8)}, data
    )
    assert math.isnan(comparison.rank_correlation().loc["a", "flat"])


def test_plot_returns_axes_and_takes_them(comparison):
    ax = Figure().subplots()
    assert comparison.plot(ax) is ax
    assert comparison.plot(ax=ax) is ax
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels[:5] == comparison.leaderboard["method"].tolist()  # best first
    assert any("6 random orders" in label for label in labels)
    assert any("reverse" in label for label in labels)
    own = comparison.plot()
    assert own is not ax
    mpl.pyplot.close(own.figure)


def test_plot_draws_every_curve_and_the_band_of_random_orders(comparison):
    ax = comparison.plot(Figure().subplots(), top=None)
    drawn = [line.get_ydata() for line in ax.lines]
    both = torch.cat([comparison.random.score, comparison.random.ascending_score]).T.tolist()
    wanted = [c.score for c in comparison.curves.values()] + [c.ascending_score for c in comparison.curves.values()]
    wanted.append(torch.tensor([oracles.quantile(step, 0.5) for step in both]))
    for curve in wanted:
        assert any(len(y) == len(curve) and np.allclose(y, curve) for y in drawn)
    corners = {(round(x, 9), round(y, 9)) for path in ax.collections[-1].get_paths() for x, y in path.vertices}
    for x, step in zip(next(iter(comparison.curves.values())).fraction.tolist(), both, strict=True):
        assert {(round(x, 9), round(oracles.quantile(step, q), 9)) for q in (0.05, 0.95)} <= corners


def test_a_methods_own_plot_has_the_same_band(comparison, tmp_path):
    loaded = Comparison.load(comparison.save(tmp_path))
    both = comparison.plot(Figure().subplots())
    for ax in (comparison["conductance"].plot(Figure().subplots()), loaded["conductance"].plot(Figure().subplots())):
        assert "6 random orders and\nreverses: median, 5 to 95 %" in legend_of(ax)
        np.testing.assert_array_equal(
            ax.collections[-1].get_paths()[0].vertices, both.collections[-1].get_paths()[0].vertices
        )


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def coloured(ax):
    return [line for line in ax.lines if line.get_color() not in (plots.GREY, plots.DARK_GREY)]


def test_the_best_have_colours_and_the_rest_is_counted(comparison):
    ax = comparison.plot(Figure().subplots(), top=2)
    best = comparison.leaderboard["method"].tolist()
    assert legend_of(ax)[:3] == [*best[:2], "3 more methods"]
    shown = [line.get_ydata() for line in coloured(ax)]
    wanted = [c for name in best[:2] for c in (comparison[name].ascending_score, comparison[name].score)]
    np.testing.assert_allclose(shown, np.stack(wanted))
    assert len([line for line in ax.lines if line.get_color() == plots.GREY]) == 6
    assert not any("more" in text for text in legend_of(comparison.plot(Figure().subplots(), top=None)))
    with pytest.raises(ValueError, match="top must be"):
        comparison.plot(top=0)


def test_equal_curves_are_drawn_once_and_named_together(setting):
    model, data, _ = setting
    names = {"a": torch.arange(8.0), "other": -torch.arange(8.0), **{f"a{k}": torch.arange(8.0) * k for k in (2, 3)}}
    evaluator = CumulativeAblationEvaluator(model, "1", metric="logit", n_random=0)
    ax = evaluator.compare(names, data).plot(Figure().subplots(), top=1)
    groups = ["a\n= a2\n= a3", "other"]
    assert legend_of(ax)[0] in groups
    assert legend_of(ax)[1] == ("1 more method" if legend_of(ax)[0] == groups[0] else "3 more methods")
    assert len(ax.lines) == 4


def test_plot_without_random_orders(setting):
    comparison = compared(setting, n_random=0)
    ax = comparison.plot(Figure().subplots())
    labels = " ".join(text.get_text() for text in ax.get_legend().get_texts())
    assert not re.search("random orders", labels)


def test_the_report_is_one_file_that_needs_no_other(comparison, tmp_path):
    file = tmp_path / "run.html"
    assert comparison.report(str(file)) == file
    page = file.read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["run.html"]
    assert page.startswith("<!doctype html>")
    assert not re.search(r"https?://|<link|<script|src=\"(?!data:)", page)
    assert page.count("<figure>") == 2
    assert page.count("<svg") == 3  # the curves are there for wide windows and for narrow ones
    assert comparison.setting in page
    for name in comparison.curves:
        assert name in page
    assert "no rule for ReLU" in page


def test_results_cannot_be_assigned_to(comparison):
    for owner, name in (
        (comparison, "curves"),
        (comparison, "failed"),
        (comparison, "leaderboard"),
        (comparison.random, "areas"),
        (comparison["tied"], "values"),
        (comparison["tied"], "gap"),
    ):
        with pytest.raises((FrozenInstanceError, AttributeError)):
            setattr(owner, name, None)


def test_mappings_of_results_cannot_be_written_to(comparison):
    for mapping in (comparison.curves, comparison.failed, comparison.provenance, comparison["tied"].provenance):
        with pytest.raises(TypeError):
            mapping["new"] = 1
    with pytest.raises(TypeError):
        comparison["new"] = comparison["tied"]


def test_writing_into_the_board_does_not_change_the_result(setting):
    comparison = compared(setting)
    before = str(comparison)
    comparison.leaderboard["gap"] = 0.0
    assert str(comparison) == before


def test_random_orders_sum_up_like_curves():
    areas, reverse = torch.rand(3, 9, dtype=torch.float64), torch.rand(3, 9, dtype=torch.float64)
    score = torch.rand(3, 4, dtype=torch.float64)
    orders = RandomOrders(score, score, areas, reverse)
    torch.testing.assert_close(orders.deletion, areas.mean(1))
    torch.testing.assert_close(orders.insertion, -reverse.mean(1))
    torch.testing.assert_close(orders.gap, (areas - reverse).mean(1))
    frame = orders.to_frame(torch.linspace(0, 1, 4))
    assert len(frame) == 3 * 2 * 4
    assert list(frame.columns) == ["order", "direction", "fraction", "score"]


def test_without_random_orders_their_frame_is_empty():
    nothing = RandomOrders.of([], [], torch.linspace(0, 1, 4, dtype=torch.float64), 9)
    assert nothing.to_frame(torch.linspace(0, 1, 4)).empty
    assert nothing.gap.shape == (0,)
