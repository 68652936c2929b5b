"""The report of a comparison, parsed: each section, the same numbers as the result, and laws of accessibility."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import LayerConductance
from pages import cells, files, parsed, typed
from torch import nn

from captum_ablate import Comparison, CumulativeAblationEvaluator, LayerMeanActivity, LayerUnitAblation, combine
from captum_ablate.evaluation import plots, report
from captum_ablate.evaluation.report.meaning import MEANINGS
from captum_ablate.evaluation.report.pages import ENVIRONMENT
from captum_ablate.evaluation.report.repeat import citations, python_lines
from captum_ablate.evaluation.report.tables import signed
from captum_ablate.inputs.wording import number

SECTIONS = [
    "leaderboard", "meaning", "gaps", "curves", "pairs", "classes", "correlation", "deficits", "units", "settings",
    "cost", "provenance", "repeat", "cite", "data",
]  # fmt: skip


@pytest.fixture(scope="module")
def measured(setting):
    """A comparison with measured deficits, two equal orders, ties, a dead unit and a method that failed."""
    model, data, rank = setting
    scores = LayerMeanActivity(model, "1").attribute(rank[0], target=rank[1])
    methods = {
        "unit ablation": LayerUnitAblation(model, "1"),
        "conductance": LayerConductance(model, model[1]),
        "activity": scores,
        "activity again": 2 * scores,
        "tied": torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]),
        "too short": torch.ones(3),
    }
    return CumulativeAblationEvaluator(model, "1", steps=4, n_random=6).compare(methods, data, ranking_data=rank)


@pytest.fixture(scope="module")
def page(measured, tmp_path_factory):
    file = measured.report(tmp_path_factory.mktemp("report") / "page.html", command="captum-ablate compare --out x")
    return parsed(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    def compared(seed, reference):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
        x = torch.randn(30, 4)
        methods = {name: torch.rand(6) for name in "abc"}
        return CumulativeAblationEvaluator(model, "1", reference=reference, metric="logit", n_random=2).compare(
            methods, (x, model(x).argmax(1)), ranking_data=(torch.randn(20, 4), torch.arange(20) % 3)
        )

    return combine({f"net {k}": [compared(k, "zero"), compared(k, "mean")] for k in range(5)})


@pytest.fixture(scope="module")
def combined_page(together, tmp_path_factory):
    file = together.report(tmp_path_factory.mktemp("report") / "page.html")
    return parsed(file.read_text(encoding="utf-8"))


def test_every_section_is_there_and_in_the_contents(page):
    assert [one.attributes["id"] for one in page.all("section")] == SECTIONS
    (contents,) = page.all("nav")
    assert [link.attributes["href"] for link in contents.all("a")] == [f"#{name}" for name in SECTIONS]
    assert [one.text for one in contents.all("a")].count("") == 0


def test_the_verdict_comes_first(page, measured):
    (header,) = page.all("header")
    first, lead, setting = [one.text for one in header if one.tag in ("h1", "p")][:3]
    assert first == "Attributions compared on 1"
    assert (lead, setting) == (measured.verdict, measured.setting)
    assert [one.text for one in header.all("li")] == measured.notes
    assert any("same order: activity and activity again" in note for note in measured.notes)


def test_the_leaderboard_has_the_numbers_of_the_result(page, measured):
    (table,) = page.by_id("leaderboard").all("table")
    heading, *rows = cells(table)
    assert heading[0] == "rank of these orders"
    assert heading[1:] == ["method", "gap [95 % for these rankings]", "z", "p", "deletion", "insertion"]
    for row, expected in zip(rows, measured.leaderboard.to_dict("records"), strict=True):
        ends = [signed(number("gap", expected[name])) for name in ("gap", "gap_low", "gap_high")]
        others = [signed(number(name, expected[name])) for name in ("z", "p", "deletion", "insertion")]
        assert row == [expected["rank"], expected["method"], "{} [{}, {}]".format(*ends), *others]
    assert "too short" in page.by_id("leaderboard").text


def test_all_its_numbers_are_explained(page):
    terms = [one.text for one in page.by_id("meaning").all("dt")]
    assert terms == ["rank of these orders", "gap", "z", "p", "deletion", "insertion"]
    assert MEANINGS["z"] in page.by_id("meaning").text


def test_differences_are_those_of_versus(page, measured):
    best = measured.leaderboard["method"][0]
    against, matrix = page.by_id("pairs").all("table")
    for name, lead, p, _ in cells(against)[1:]:
        found = measured.versus(best, name)
        assert lead.startswith(signed(f"{found.value:.3f} [{found.interval.low:.3f}, "))
        assert p == number("p", found.p)
    names = [row[0].split(" ", 1)[1] for row in cells(matrix)[1:]]
    assert names == measured.leaderboard["method"].tolist()
    for a, row in zip(names, cells(matrix)[1:], strict=True):
        for b, text in zip(names, row[1:], strict=True):
            if a == b:
                assert text == ""
                continue
            found = measured.versus(a, b)
            assert float(text.rstrip("*").replace("\N{MINUS SIGN}", "-")) == pytest.approx(found.value, abs=0.00501)
            assert text.endswith("*") == (found.p <= 0.05)


def test_the_classes_have_the_mean_gap_of_their_samples(page, measured):
    (table,) = page.by_id("classes").all("table")
    heading, intact, *rows = cells(table)
    curve = measured["conductance"]
    assert heading[1:] == [str(c) for c in curve.classes.tolist()]
    for k, label in enumerate(curve.classes.tolist()):
        own = curve.target == label
        assert float(intact[1 + k]) == pytest.approx(float(curve.values[0][own].mean()), abs=0.00051)
        for row in rows:
            expected = float(measured[row[0]].gap_areas[own].mean())
            assert float(row[1 + k].replace("\N{MINUS SIGN}", "-")) == pytest.approx(expected, abs=0.00501)


def test_targets_that_are_no_classes_are_said(setting, tmp_path):
    model, (x, _), _ = setting
    evaluator = CumulativeAblationEvaluator(model, "1", metric=lambda out, y: -((out[:, 0] - y) ** 2), n_random=2)
    comparison = evaluator.compare({"a": torch.rand(8)}, (x, torch.randn(len(x))))
    text = parsed(comparison.report(tmp_path / "page.html").read_text(encoding="utf-8")).by_id("classes").text
    assert "Targets are not one class per sample" in text


def test_correlations_and_measured_deficits(page, measured):
    tau = measured.rank_correlation()
    (table,) = page.by_id("correlation").all("table")
    names = [row[0].split(" ", 1)[1] for row in cells(table)[1:]]
    for a, row in zip(names, cells(table)[1:], strict=True):
        for b, text in zip(names, row[1:], strict=True):
            if a != b and text:
                assert float(text.replace("\N{MINUS SIGN}", "-")) == pytest.approx(tau.loc[a, b], abs=0.00501)
    (table,) = page.by_id("deficits").all("table")
    assert [row[0] for row in cells(table)[1:]] == [name for name in names if name != "unit ablation"]
    (drawn,) = page.by_id("deficits").all("svg")
    assert "conductance" in [one.text for one in drawn.all("text")]


def test_equal_curves_ties_and_settings_are_named(page, measured):
    assert "activity and activity again" in [one.text for one in page.by_id("curves").all("li")]
    (ties,) = page.by_id("units").all("table")
    assert ["tied", str(measured["tied"].ties)] in cells(ties)
    settings = dict(zip(*([one.text for one in page.by_id("settings").all(tag)] for tag in ("dt", "dd")), strict=True))
    about = measured.provenance
    assert settings["reference"] == "zero"
    assert settings["steps"].startswith("4: ")
    assert settings["evaluated samples that were ranked on"] == "0"
    provenance = page.by_id("provenance").text
    for text in (about.weights, about.ranking_digest, about.evaluation_digest, *about.versions.values()):
        assert text in provenance
    cost = [row[0] for row in cells(page.by_id("cost").all("table")[0])[1:]]
    assert set(cost) == {f"ranking: {name}" for name in about.ranking_seconds} | {"all, with ablation"}


def test_it_says_how_to_repeat_and_to_cite(page, measured):
    command, lines = (one.text for one in page.by_id("repeat").all("code"))
    assert command == "captum-ablate compare --out x"
    assert "'conductance': ..., # LayerConductance" in lines
    assert "@article{bluecher2024decoupling" in page.by_id("cite").text
    assert f"version = {{{measured.provenance.versions['captum_ablate']}}}" in page.by_id("cite").text


def test_the_files_inside_are_the_frames(page, measured):
    found = files(page)
    tau = measured.rank_correlation().rename_axis("method").reset_index()
    expected = {
        "curves.csv": measured.to_frame(),
        "leaderboard.csv": measured.leaderboard,
        "pairs.csv": measured.pairwise(),
        "rank-correlation.csv": tau,
    }
    assert sorted(found) == sorted([*expected, "classes.csv", "scores.csv"])
    for name, frame in expected.items():
        pd.testing.assert_frame_equal(typed(found[name], frame), frame, check_exact=True, check_dtype=False)
    for name, curve in measured.curves.items():
        assert found["scores.csv"][name].astype(float).tolist() == curve.scores.tolist()
    classes = found["classes.csv"].astype({"samples": int, "gap": float})
    assert classes.groupby("method")["samples"].sum().eq(measured.provenance.n).all()
    mean = (classes["gap"] * classes["samples"]).groupby(classes["method"]).sum() / measured.provenance.n
    for name, curve in measured.curves.items():
        assert mean[name] == pytest.approx(curve.gap)


def test_a_loaded_result_has_the_same_report(measured, tmp_path):
    loaded = Comparison.load(measured.save(tmp_path / "saved"))
    first, second = (one.report(tmp_path / f"{k}.html").read_bytes() for k, one in enumerate((measured, loaded)))
    assert first == second


def test_the_users_style_of_pictures_does_not_show(measured, page, tmp_path):
    with plt.style.context("dark_background"):
        other = parsed(measured.report(tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.all("svg") == other.all("svg")


def test_the_combined_page_has_boards_gaps_and_agreement(combined_page, together):
    ids = [one.attributes["id"] for one in combined_page.all("section")]
    assert ids == ["leaderboard", "meaning", "ranks", "networks", "agreement", "settings", "cite", "data"]
    (header,) = combined_page.all("header")
    assert together.verdict in header.text
    boards = combined_page.by_id("leaderboard").all("table")
    rows = [row for board in boards for row in cells(board)[1:]]
    for row, expected in zip(rows, together.leaderboard.to_dict("records"), strict=True):
        low, high = (number("gap", expected[f"mean_rank_{end}"]) for end in ("low", "high"))
        assert row[:3] == [expected["rank"], expected["method"], f"{expected['mean_rank']:.3f} [{low}, {high}]"]
    gaps = together.to_frame().set_index(["reference", "network", "method"])
    for block, table in zip(together.blocks, combined_page.by_id("networks").all("table"), strict=True):
        heading, *lines = cells(table)
        for line in lines:
            for column, text in zip(heading[1:], line[1:], strict=True):
                one = gaps.loc[(block.reference, column.removesuffix(", 1"), line[0])]
                assert float(text.rstrip("*").replace("\N{MINUS SIGN}", "-")) == pytest.approx(one["gap"], abs=0.00501)
                assert text.endswith("*") == one["is_best"]
    (table,) = combined_page.by_id("agreement").all("table")
    tau = together.agreement().to_numpy()[0, 1]
    assert float(cells(table)[1][2].replace("\N{MINUS SIGN}", "-")) == pytest.approx(tau, abs=0.00501)
    found = files(combined_page)
    for name, frame in {"networks.csv": together.to_frame(), "leaderboard.csv": together.leaderboard}.items():
        pd.testing.assert_frame_equal(typed(found[name], frame), frame, check_exact=True, check_dtype=False)


def test_a_picture_that_fails_leaves_the_combined_page(together, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("no ink")

    monkeypatch.setattr(plots, "network_dots", broken)
    with pytest.warns(UserWarning, match="picture of the mean ranks could not be drawn: RuntimeError: no ink"):
        page = parsed(together.report(tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "no ink" in page.by_id("ranks").text
    assert len(page.by_id("leaderboard").all("table")) == 2


@pytest.fixture(params=["page", "combined_page"])
def any_page(request):
    return request.getfixturevalue(request.param)


def test_a_reader_without_eyes_finds_landmarks_headings_and_names(any_page):
    assert [len(any_page.all(tag)) for tag in ("h1", "main", "header", "nav", "footer")] == [1] * 5
    assert any_page.all("html")[0].attributes["lang"] == "en"
    skip = next(one for one in any_page.all("a"))
    assert skip.attributes["href"] == "#content"
    assert any_page.by_id("content").tag == "main"
    for section in any_page.all("section"):
        assert section.all("h2")[0].attributes["id"] == section.attributes["aria-labelledby"]
    for picture in any_page.all("svg"):
        assert picture.attributes["role"] == "img"
        assert len(picture.attributes["aria-label"]) > 40
    assert not any_page.all("img")


def test_tables_have_captions_and_scopes_and_scroll_by_keyboard(any_page):
    for table in any_page.all("table"):
        assert len(table.all("caption")) == 1
        for cell in table.all("th"):
            assert cell.attributes["scope"] in ("col", "row")
        assert all(one.attributes["scope"] == "col" for one in table.all("thead")[0].all("th"))
        width = {len([cell for cell in row if cell.tag in ("td", "th")]) for row in table.all("tr")}
        assert len(width) == 1
    scrolling = [one for one in any_page if one.attributes.get("class") == "wide"]
    assert len(scrolling) == len(any_page.all("table"))
    for one in [*scrolling, *any_page.all("pre")]:
        assert one.attributes["tabindex"] == "0"
    assert all(one.attributes["role"] == "region" and one.attributes["aria-label"] for one in scrolling)


def test_ids_are_there_once_and_links_lead_to_them(any_page):
    ids = [one.attributes["id"] for one in any_page if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    links = [one.attributes["href"] for one in any_page if "href" in one.attributes]
    assert all(link[1:] in ids for link in links if link.startswith("#"))
    assert all(link.startswith(("#", "data:text/csv")) for link in links)
    clips = [one.attributes["clip-path"] for one in any_page if "clip-path" in one.attributes]
    assert clips
    assert all(re.fullmatch(r"url\(#(.+)\)", clip)[1] in ids for clip in clips)


def test_figures_have_the_colours_of_the_page(any_page):
    for picture in any_page.all("svg"):
        styles = " ".join(one.attributes.get("style") or "" for one in picture)
        assert "var(--" in styles
        assert not re.search("#[0-9a-fA-F]{3,6}", styles)


def luminance(colour):
    parts = np.array([int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_words_and_lines_stand_out_in_both_schemes():
    css = ENVIRONMENT.get_template("style.css").render()
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in css.split("@media")[:2])
    assert light.keys() == dark.keys()
    assert len([name for name in light if re.fullmatch(r"c\d+", name)]) == len(plots.COLOURS)
    for scheme in (light, dark):
        for name in ("ink", "soft", "link"):
            assert contrast(scheme[name], scheme["paper"]) >= 4.5
        for k in range(len(plots.COLOURS)):
            assert contrast(scheme[f"c{k}"], scheme["paper"]) >= 3
        for shade in ((0, 114, 178), (213, 94, 0)):  # the darkest of a heat map, under its number
            paper = np.array([int(scheme["paper"][k : k + 2], 16) for k in (1, 3, 5)])
            behind = (0.55 * np.array(shade) + 0.45 * paper).round().astype(int)
            assert contrast("#{:02x}{:02x}{:02x}".format(*behind), scheme["ink"]) >= 4.5


@pytest.mark.parametrize("steps", [None, 3, 5, (2, 7)])
def test_the_lines_to_repeat_are_python_with_the_same_grid(setting, steps):
    model, data, _ = setting
    evaluator = CumulativeAblationEvaluator(model, "1", steps=steps, n_random=0, live_units_only=False)
    comparison = evaluator.compare({"it's": torch.rand(8), "f": lambda m, layer, d: torch.rand(8)}, data)
    counts = comparison["it's"].n_ablated
    lines = python_lines(comparison.provenance, counts.tolist(), list(comparison))
    compile(lines, "lines", "exec")
    names = {"model": model, "data": data, "f": None}
    exec(lines.split("methods =")[0], names)
    again = names["evaluator"]
    again.live_units_only = False
    assert torch.equal(again.evaluate(torch.rand(8), data).n_ablated, counts)
    assert "ranking_data" not in lines  # it was ranked on the data that it was evaluated on


def test_what_only_has_a_name_stands_without_quotes(setting):
    model, data, rank = setting

    def likelihood(outputs, target):
        return outputs[:, 0]

    evaluator = CumulativeAblationEvaluator(model, "1", metric=likelihood, reference=torch.zeros(1, 8), n_random=1)
    comparison = evaluator.compare({"a": torch.rand(8)}, data, ranking_data=rank)
    lines = python_lines(comparison.provenance, comparison["a"].n_ablated.tolist(), ["a"])
    assert "metric=likelihood," in lines
    assert "reference=tensor," in lines
    assert "ranking_data=ranking_data" in lines


def test_citations_are_entries_with_balanced_braces():
    text = citations("1.2.3")
    assert re.findall(r"^@(\w+)\{", text, re.MULTILINE) == ["software", "article", "article"]
    assert text.count("{") == text.count("}")
    assert "version = {1.2.3}" in text


def test_the_templates_are_in_the_package():
    folder = Path(report.__file__).parent / "templates"
    assert {one.name for one in folder.iterdir()} >= {"page.html", "parts.html", "comparison.html", "combined.html"}
