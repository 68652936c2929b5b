"""The leaderboard and its ranks, how a comparison is shown, and that what is saved comes back to the bit."""

from __future__ import annotations

import json
import math
import re
from dataclasses import FrozenInstanceError, fields

import matplotlib as mpl
import numpy as np
import oracles
import pandas as pd
import pytest
import torch
from captum.attr import LayerConductance, LayerGradCam, LayerLRP
from matplotlib.figure import Figure
from scipy.stats import kendalltau
from torch import Tensor, nn

from captum_ablate import Comparison, CumulativeAblationEvaluator, LayerMeanActivity
from captum_ablate.evaluation.comparison import RandomOrders

mpl.use("Agg")

MEANING = "gap = deletion + insertion: larger means that the attribution finds the units that the network needs"
NUMBERS = ["gap", "deletion", "insertion", "over_random"]


@pytest.fixture(scope="module")
def setting():
    """A ReLU net, data to evaluate on, and other data to rank on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(70, 5)
    with torch.no_grad():
        y = model(x + 0.4 * torch.randn(70, 5)).argmax(1)
    return model, (x, y), (torch.randn(40, 5), torch.arange(40) % 3)


def compared(setting, *, ranking=True, **options):
    model, data, rank = setting
    methods = {
        "random 1": torch.randn(8, generator=torch.Generator().manual_seed(1)),
        "conductance": LayerConductance(model, model[1]),
        "LRP": LayerLRP(model, model[1]),
        "mean activity": LayerMeanActivity(model, "1"),
        "backwards": -LayerMeanActivity(model, "1").attribute(rank[0], target=rank[1]),
        "tied": torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]),
        "other layer": LayerGradCam(model, model[0]),
    }
    evaluator = CumulativeAblationEvaluator(model, "1", **{"steps": 4, "n_random": 6, **options})
    return evaluator.compare(methods, data, ranking_data=rank if ranking else None)


@pytest.fixture(scope="module")
def comparison(setting):
    return compared(setting)


@pytest.fixture(scope="module")
def in_sample(setting):
    return compared(setting, ranking=False)


def test_methods_keep_their_order_and_the_board_is_best_first(comparison):
    assert list(comparison.curves) == ["random 1", "conductance", "mean activity", "backwards", "tied"]
    assert sorted(comparison.failed) == ["LRP", "other layer"]
    gaps = comparison.leaderboard["gap"].tolist()
    assert gaps == sorted(gaps, reverse=True)
    assert set(comparison.leaderboard["method"]) == set(comparison.curves)
    assert comparison.leaderboard.index.tolist() == list(range(5))


def test_the_board_holds_what_the_curves_say(comparison):
    columns = ["rank", "method"]
    for name in NUMBERS:
        columns += [name, f"{name}_low", f"{name}_high"]
    assert list(comparison.leaderboard.columns) == [*columns, "p", "ties"]
    for row in comparison.leaderboard.to_dict("records"):
        curve = comparison[row["method"]]
        for name in NUMBERS:
            assert row[name] == getattr(curve, name)
            assert (row[f"{name}_low"], row[f"{name}_high"]) == getattr(curve, f"{name}_interval")
        assert (row["p"], row["ties"]) == (curve.p, curve.ties)
    assert comparison["tied"].ties == 6


def test_rank_ranges_are_those_of_holm_over_all_pairs(comparison):
    areas = [curve.gap_areas.tolist() for curve in comparison.curves.values()]
    expected = dict(zip(comparison.curves, oracles.rank_ranges(areas), strict=True))
    for row in comparison.leaderboard.to_dict("records"):
        low, high = expected[row["method"]]
        assert row["rank"] == (str(low) if low == high else f"{low}-{high}")
    assert len(set(comparison.leaderboard["rank"])) > 1  # the data tell some apart


def test_without_the_reverse_ranks_are_those_of_deletion(setting):
    comparison = compared(setting, ascending=False)
    areas = [curve.areas.tolist() for curve in comparison.curves.values()]
    expected = dict(zip(comparison.curves, oracles.rank_ranges(areas), strict=True))
    deletions = comparison.leaderboard["deletion"].tolist()
    assert deletions == sorted(deletions, reverse=True)
    for row in comparison.leaderboard.to_dict("records"):
        low, high = expected[row["method"]]
        assert row["rank"] == (str(low) if low == high else f"{low}-{high}")
    assert comparison.leaderboard["gap"].isna().all()
    header = str(comparison).splitlines()[1]
    assert not re.search(r"gap|insertion", header)


def test_equal_methods_share_their_range(setting):
    model, data, _ = setting
    scores = torch.arange(8.0)
    comparison = CumulativeAblationEvaluator(model, "1", n_random=0).compare({"a": scores, "b": scores * 2}, data)
    assert comparison.leaderboard["rank"].tolist() == ["1-2", "1-2"]


def test_a_method_is_found_by_name_or_its_absence_explained(comparison):
    assert comparison["tied"] is comparison.curves["tied"]
    with pytest.raises(KeyError, match=r"'LRP' is not applicable: LayerLRP has no rule for ReLU"):
        comparison["LRP"]
    with pytest.raises(KeyError, match=r"no method 'SHAP'; there are 'random 1', 'conductance'"):
        comparison["SHAP"]


def test_print_is_the_table_of_the_design(comparison):
    lines = str(comparison).splitlines()
    accuracy = comparison["tied"].score[0]
    assert lines[0] == f"1 (8 units, zero reference, accuracy {accuracy:.3f} on 70 images, 6 random orders)"
    assert re.split(r" {2,}", lines[1]) == [
        "rank", "method", "gap [95 % interval]", "deletion", "insertion", "over random [95 %]", "p",
    ]  # fmt: skip
    for text, row in zip(lines[2:7], comparison.leaderboard.to_dict("records"), strict=True):
        assert re.split(r" {2,}", text) == [
            row["rank"],
            row["method"],
            f"{row['gap']:.3f} [{row['gap_low']:.3f}, {row['gap_high']:.3f}]",
            f"{row['deletion']:.3f}",
            f"{row['insertion']:.3f}",
            f"{row['over_random']:.3f} [{row['over_random_low']:.3f}, {row['over_random_high']:.3f}]",
            f"{row['p']:.3f}",
        ]
    assert len({len(line) for line in lines[1:7]}) == 1  # numbers end below each other
    lrp, other = sorted(lines[7:9])
    assert lrp == f"not applicable: LRP ({comparison.failed['LRP']})"
    assert other.startswith("not applicable: other layer (the attribution belongs to another layer")
    assert lines[9:] == [MEANING]
    assert repr(comparison) == str(comparison)


def test_print_counts_in_thousands(setting):
    model, (x, y), _ = setting
    data = (x.repeat(20, 1), y.repeat(20))
    comparison = CumulativeAblationEvaluator(model, "1", n_random=0, steps=1).compare({"a": torch.arange(8.0)}, data)
    assert "on 1,400 images)" in str(comparison)


def test_html_shows_the_same_table(comparison):
    html = comparison._repr_html_()
    assert comparison.setting in html
    text = re.sub(r"<[^>]+>", " ", html).replace("\N{MINUS SIGN}", "-")
    for row in comparison.leaderboard.to_dict("records"):
        assert row["method"] in text
        assert f"{row['gap']:.3f}" in text
    assert "not applicable:" in text
    assert "no rule for ReLU" in text
    assert MEANING in html


def test_what_users_name_is_escaped_in_html(setting):
    model, data, _ = setting
    evaluator = CumulativeAblationEvaluator(model, "1", n_random=0, steps=1)
    html = evaluator.compare({"<script>x</script>": torch.arange(8.0)}, data)._repr_html_()
    assert "<script>x" not in html
    assert "&lt;script&gt;" in html


def titles(ax):
    return " ".join(ax.get_title(where) for where in ("left", "center", "right"))


def test_in_sample_is_said_wherever_it_is_shown(comparison, in_sample, tmp_path):
    for one, said in ((comparison, False), (in_sample, True)):
        page = one.report(tmp_path / "page.html").read_text(encoding="utf-8")
        ax = one.plot(Figure().subplots())
        shown = [str(one), repr(one), one._repr_html_(), one.setting, titles(ax), page, repr(one["tied"])]
        assert ["in-sample" in text for text in shown] == [said] * 7
        assert one.provenance["in_sample"] == said


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


def test_plot_without_random_orders_or_reverse(setting):
    comparison = compared(setting, ascending=False, n_random=0)
    ax = comparison.plot(Figure().subplots())
    labels = " ".join(text.get_text() for text in ax.get_legend().get_texts())
    assert not re.search("random orders|reverse", labels)


# Saving.


def assert_equal(one, other):
    """Equal to the bit, field by field, whatever the fields hold."""
    kinds = (Tensor, bool, int, float, str, tuple)
    assert type(one) is type(other) or [isinstance(one, k) for k in kinds] == [isinstance(other, k) for k in kinds]
    if isinstance(one, Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, float):
        assert one == other or (math.isnan(one) and math.isnan(other))
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    elif hasattr(one, "items"):
        assert list(one) == list(other)
        for key in one:
            assert_equal(one[key], other[key])
    elif hasattr(one, "__dataclass_fields__"):
        for field in fields(one):
            assert_equal(getattr(one, field.name), getattr(other, field.name))
    else:
        assert one == other


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_random": 0},
        {"ascending": False},
        {"ascending": False, "n_random": 0},
        {"metric": "log_likelihood", "reference": "mean", "seed": 3},
        {"metric": lambda outputs, target: outputs[:, 0], "reference": lambda a, _: a / 3},
        {"reference": torch.ones(8), "steps": None, "n_random": 1},
    ],
    ids=lambda options: "-".join(options) or "default",
)
def test_what_is_saved_comes_back_to_the_bit(setting, tmp_path, options):
    comparison = compared(setting, **options)
    folder = tmp_path / "not yet" / "there"
    assert comparison.save(folder) == folder
    assert sorted(file.name for file in folder.iterdir()) == ["comparison.json", "comparison.npz"]
    loaded = Comparison.load(folder)
    assert_equal(loaded, comparison)
    assert str(loaded) == str(comparison)
    assert loaded._repr_html_() == comparison._repr_html_()
    pd.testing.assert_frame_equal(loaded.leaderboard, comparison.leaderboard, check_exact=True)
    pd.testing.assert_frame_equal(loaded.to_frame(), comparison.to_frame(), check_exact=True)
    loaded.plot(Figure().subplots())


def test_saving_twice_and_loading_from_a_string_give_the_same(comparison, tmp_path):
    str(comparison)  # the board is made by now, and must not be saved as a field
    first = comparison.save(str(tmp_path / "run"))
    again = Comparison.load(str(tmp_path / "run")).save(tmp_path / "again")
    assert (first / "comparison.json").read_bytes() == (again / "comparison.json").read_bytes()
    comparison.save(first)
    assert_equal(Comparison.load(first), comparison)


def test_odd_names_survive(setting, tmp_path):
    model, data, _ = setting
    names = ['a/b\\c "quoted" \N{GREEK SMALL LETTER ALPHA}', "curve1", "x.scores", ""]
    evaluator = CumulativeAblationEvaluator(model, "1", n_random=2, steps=2)
    comparison = evaluator.compare(
        {**{name: torch.randn(8) for name in names}, "\N{GREEK SMALL LETTER OMEGA}": torch.zeros(3)}, data
    )
    loaded = Comparison.load(comparison.save(tmp_path))
    assert_equal(loaded, comparison)
    assert list(loaded.curves) == names


def test_what_is_saved_is_plain_json_and_arrays_without_pickles(comparison, tmp_path):
    folder = comparison.save(tmp_path)
    about = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert about["failed"] == dict(comparison.failed)
    with np.load(folder / "comparison.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype.kind in "fiub" for name in arrays.files)


# The report.


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


# Frozen.


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


# Random orders.


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
    nothing = RandomOrders(torch.zeros(0, 4), None, torch.zeros(0, 9), None)
    assert nothing.to_frame(torch.linspace(0, 1, 4)).empty
    assert nothing.gap.shape == (0,)
