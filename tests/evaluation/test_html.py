"""The page and the fragment: complete, self-contained, escaped."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from captum_ablate.evaluation import html as report
from captum_ablate.evaluation.curve import GAP_MEANING

HEADER = "layer3 (256 units, zero reference)"


def leaderboard() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rank": ["1", "2"],
            "method": ["selectivity x activity", "<b>mine</b>"],
            "gap": [0.2141, np.nan],
            "gap_low": [0.1969, np.nan],
            "gap_high": [0.2311, np.nan],
            "insertion": [-0.177, 0.0],
            "ties": [3, 0],
        }
    )


class Cells(HTMLParser):
    """Collect the text of each table cell and check that every tag is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "th" in self.open or "td" in self.open:
            self.rows[-1][-1] += data


def test_table_shows_every_method_with_its_interval() -> None:
    assert Cells(report.table_html(leaderboard(), HEADER, {})).rows == [
        ["rank", "method", "gap [95 %]", "insertion", "ties"],
        ["1", "selectivity x activity", "0.214 [0.197, 0.231]", "\N{MINUS SIGN}0.177", "3"],
        ["2", "<b>mine</b>", " ", "0.000", "0"],
    ]


def test_an_index_of_names_is_shown_and_a_plain_number_is_not() -> None:
    named = leaderboard().set_index("method")
    assert "selectivity x activity" in report.table_html(named, HEADER, {})
    named.index.name = None
    assert "selectivity x activity" in report.table_html(named, HEADER, {})
    assert Cells(report.table_html(leaderboard(), HEADER, {})).rows[0][0] == "rank"


@pytest.mark.parametrize("value", ["<script>alert(1)</script>", 'a "quoted" & <b>'])
def test_what_users_name_is_escaped(value: str) -> None:
    frame = leaderboard().assign(method=value)
    page = report.render(value, report.table_html(frame, value, {value: value}), [report.Picture.of(titled(value))])
    assert value not in page
    assert "&lt;" in page


def test_table_gives_the_reason_of_what_was_not_applicable() -> None:
    html = report.table_html(leaderboard(), HEADER, {"LRP": "no rule for ReLU"})
    assert re.search(r"not applicable:</b> <bdi>LRP</bdi> \(no rule for ReLU\)", html)
    assert "not applicable" not in report.table_html(leaderboard(), HEADER, {})


def test_table_says_what_a_gap_is() -> None:
    assert GAP_MEANING in report.table_html(leaderboard(), HEADER, {})


def test_an_empty_leaderboard_still_renders() -> None:
    assert (
        len(Cells(report.render("nothing", report.table_html(leaderboard().head(0), HEADER, {"a": "b"}), [])).rows) == 1
    )


def titled(title: str) -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.subplots().set_title(title, loc="left")
    return figure


def test_page_embeds_the_figures_and_needs_no_other_file() -> None:
    pictures = [report.Picture.of(titled(name)) for name in ("curves", "bars")]
    page = report.render("A run", report.table_html(leaderboard(), HEADER, {}), pictures)
    Cells(page)
    images = re.findall(r'alt="(\w+)" src="data:image/png;base64,([^"]+)"', page)
    assert [alt for alt, _ in images] == ["curves", "bars"]
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for _, data in images)
    assert not re.search(r"https?://|<link|<script", page)
    assert "<title>A run</title>" in page
    assert HEADER in page
