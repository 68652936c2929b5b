"""A page has its command, claims, tables and figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from benchmarks.papers.common import claims
from benchmarks.papers.common.page import Seconds, Section, markdown, write_page
from benchmarks.papers.common.scale import Scale
from captum_ablate.statistics.intervals import Interval


def test_a_page_has_its_command_claims_tables_and_figures(tmp_path) -> None:
    claim = claims.reported("C9", "a | b", "look", figure="0.5", interval=Interval(0.4, 0.6), note="only a look")
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    frame = pd.DataFrame({"network": ["a"], "gap": [0.12345]})
    section = Section("Curves", "Before.\n\n{gaps}\n\nAfter.", {"gaps": frame}, {"curve": figure}, {"curve": "A line."})
    page = write_page(
        "paper",
        "A paper",
        command="python -m benchmarks.papers paper",
        seconds=Seconds(90, 300),
        sections=[section],
        claims=[claim],
        scale=Scale.NORMAL,
        folder=tmp_path,
    )
    text = page.read_text()
    assert (
        "`python -m benchmarks.papers paper` (90 s on one core without training, which took 5 min by the clock)" in text
    )
    assert "| C9: a \\| b | look | 0.5 | **reported** |" in text
    assert "- C9: only a look" in text
    assert text.index("Before.") < text.index("| a | 0.123 |") < text.index("After.") < text.index("paper/curve.png")
    assert (tmp_path / "paper" / "curve.png").stat().st_size > 0
    assert pd.read_csv(tmp_path / "paper" / "gaps.csv")["gap"][0] == pytest.approx(0.12345)
    row = pd.read_csv(tmp_path / "paper.csv").iloc[0]
    assert (row["id"], row["low"], row["high"], row["verdict"]) == ("C9", 0.4, 0.6, "reported")


def test_a_quick_page_goes_elsewhere(capsys) -> None:
    page = write_page("paper", "A", command="c", seconds=Seconds(1), sections=[], claims=[], scale=Scale.QUICK)
    assert "docs" not in page.parts
    assert str(page) in capsys.readouterr().out


def test_tables_leave_nan_empty() -> None:
    assert markdown(pd.DataFrame({"a": [np.nan], "b": [2]})).splitlines()[-1] == "|  | 2 |"
