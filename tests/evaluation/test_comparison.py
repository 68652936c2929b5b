"""A comparison as a result: found by name, framed, correlated, plotted, reported, and frozen."""

from __future__ import annotations

import math
import re
from dataclasses import FrozenInstanceError

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from all_kinds import compared
from matplotlib.figure import Figure
from scipy.stats import kendalltau

from captum_ablate import CumulativeAblationEvaluator
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


def test_plot_draws_every_curve_and_every_random_order(comparison):
    ax = comparison.plot(Figure().subplots())
    drawn = [line.get_ydata() for line in ax.lines]
    wanted = [c.score for c in comparison.curves.values()] + [c.ascending_score for c in comparison.curves.values()]
    wanted += [*comparison.random.score, *comparison.random.ascending_score]
    for curve in wanted:
        assert any(len(y) == len(curve) and np.allclose(y, curve) for y in drawn)


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
    assert page.count("data:image/png;base64,") == 2
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
