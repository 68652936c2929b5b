"""The fragment that notebooks show: complete, well-formed, escaped."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from captum_ablate.evaluation.curve import GAP_MEANING
from captum_ablate.evaluation.html import table_html

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
    assert Cells(table_html(leaderboard(), HEADER, {})).rows == [
        ["rank", "method", "gap [95 %]", "insertion", "ties"],
        ["1", "selectivity x activity", "0.214 [0.197, 0.231]", "\N{MINUS SIGN}0.177", "3"],
        ["2", "<b>mine</b>", " ", "0.000", "0"],
    ]


def test_an_index_of_names_is_shown_and_a_plain_number_is_not() -> None:
    named = leaderboard().set_index("method")
    assert "selectivity x activity" in table_html(named, HEADER, {})
    named.index.name = None
    assert "selectivity x activity" in table_html(named, HEADER, {})
    assert Cells(table_html(leaderboard(), HEADER, {})).rows[0][0] == "rank"


@pytest.mark.parametrize("value", ["<script>alert(1)</script>", 'a "quoted" & <b>'])
def test_what_users_name_is_escaped(value: str) -> None:
    frame = leaderboard().assign(method=value)
    page = table_html(frame, value, {value: value}, [value], footnotes=[value])
    assert value not in page
    assert "&lt;" in page


def test_table_gives_the_reason_of_what_was_not_applicable() -> None:
    html = table_html(leaderboard(), HEADER, {"LRP": "no rule for ReLU"})
    assert re.search(r"not applicable:</b> <bdi>LRP</bdi> \(no rule for ReLU\)", html)
    assert "not applicable" not in table_html(leaderboard(), HEADER, {})


def test_table_says_what_a_gap_is() -> None:
    assert GAP_MEANING in table_html(leaderboard(), HEADER, {})


def test_an_empty_leaderboard_still_renders() -> None:
    assert len(Cells(table_html(leaderboard().head(0), HEADER, {"a": "b"})).rows) == 1
