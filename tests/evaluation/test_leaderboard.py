"""The leaderboard: its order, columns and ranks, and how it is printed."""

from __future__ import annotations

import re

import matplotlib as mpl
import oracles
import torch
from matplotlib.figure import Figure

from captum_ablate import CumulativeAblationEvaluator
from captum_ablate.evaluation.claims import HELD_ORDERS

mpl.use("Agg")

MEANING = "gap = deletion + insertion: larger means that the attribution finds the units that the network needs"
NUMBERS = ["gap", "deletion", "insertion"]


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
    assert list(comparison.leaderboard.columns) == [
        *columns,
        "z",
        "p",
        "p_raw",
        "p_exact",
        "ties",
        "resamples",
        "seconds",
    ]
    for row in comparison.leaderboard.to_dict("records"):
        curve = comparison[row["method"]]
        for name in NUMBERS:
            assert row[name] == getattr(curve, name)
            assert (row[f"{name}_low"], row[f"{name}_high"]) == getattr(curve, f"{name}_interval")
        assert [row[name] for name in ("z", "p", "p_raw", "p_exact", "ties")] == [
            curve.z, curve.p, curve.p_raw, curve.p_exact, curve.ties,
        ]  # fmt: skip
    assert comparison["tied"].ties == 6


def test_rank_ranges_are_those_of_holm_over_all_pairs(comparison):
    areas = [curve.gap_areas.tolist() for curve in comparison.curves.values()]
    expected = dict(zip(comparison.curves, oracles.rank_ranges(areas, span=2), strict=True))
    for row in comparison.leaderboard.to_dict("records"):
        low, high = expected[row["method"]]
        assert row["rank"] == (str(low) if low == high else f"{low}-{high}")
    assert len(set(comparison.leaderboard["rank"])) > 1  # the data tell some apart


def test_equal_methods_share_their_range(setting):
    model, data, _ = setting
    scores = torch.arange(8.0)
    comparison = CumulativeAblationEvaluator(model, "1", n_random=0).compare({"a": scores, "b": scores * 2}, data)
    assert comparison.leaderboard["rank"].tolist() == ["1-2", "1-2"]


def test_print_is_the_table_of_the_design(comparison):
    setting, note, *lines = str(comparison).splitlines()
    accuracy = comparison["tied"].score[0]
    assert setting == (
        f"1 (8 units, zero reference, accuracy {accuracy:.3f} on 70 samples, 6 random orders); "
        "ranked on unknown data: random 1, backwards and tied"
    )
    assert [note] == comparison.notes
    assert re.split(r" {2,}", lines[0]) == [
        "rank of these orders", "method", "gap [95 % interval for these rankings]", "z", "p", "deletion", "insertion",
    ]  # fmt: skip
    for text, row in zip(lines[1:6], comparison.leaderboard.to_dict("records"), strict=True):
        assert re.split(r" {2,}", text) == [
            row["rank"],
            row["method"],
            f"{row['gap']:.3f} [{row['gap_low']:.3f}, {row['gap_high']:.3f}]",
            f"{row['z']:.1f}",
            f"{row['p']:.3f}" if row["p"] >= 0.0005 else "<0.001",
            f"{row['deletion']:.3f}",
            f"{row['insertion']:.3f}",
        ]
    assert len({len(line) for line in lines[0:6]}) == 1  # numbers end below each other
    lrp, other = sorted(lines[6:8])
    assert lrp == f"not applicable: LRP ({comparison.failed['LRP']})"
    assert other.startswith("not applicable: other layer (the attribution belongs to another layer")
    assert lines[8:] == [MEANING, HELD_ORDERS]
    assert repr(comparison) == str(comparison)


def test_print_counts_in_thousands(setting):
    model, (x, y), _ = setting
    data = (x.repeat(20, 1), y.repeat(20))
    comparison = CumulativeAblationEvaluator(model, "1", n_random=0, steps=1).compare({"a": torch.arange(8.0)}, data)
    assert "on 1,400 samples)" in str(comparison)


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
        assert one.provenance.in_sample == said


def test_a_narrow_terminal_gets_the_first_columns(comparison):
    whole = str(comparison).splitlines()
    assert comparison.to_text() == str(comparison) == comparison.to_text(500)
    header = next(line for line in whole if line.startswith("rank"))
    for width in (len(header) - 1, 60, 10):
        table = [line for line in comparison.to_text(width).splitlines() if line not in whole]
        assert header.startswith(table[0])
        assert max(map(len, table)) <= width or table[0].split("  ")[-1].strip().startswith("gap")
    assert "gap [" in comparison.to_text(10)
