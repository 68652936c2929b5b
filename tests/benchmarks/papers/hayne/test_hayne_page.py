"""The protocol runs at quick scale and writes its page."""

from __future__ import annotations

import pytest

from benchmarks.papers.common.scale import Scale
from benchmarks.papers.hayne import page


@pytest.mark.slow
def test_a_quick_run_writes_its_page(data_folder, capsys):
    page.run(Scale.QUICK)
    file = capsys.readouterr().out.strip().splitlines()[-1].removeprefix("wrote ")
    with open(file) as written:
        text = written.read()
    for claim in ("C0.1", "C0.2a", "C0.2b", "C0.3a", "C0.3b", "C0.4"):
        assert f"| {claim}: " in text
    assert "EfficientNet" not in text.split("## Claims")[0]  # what did not run is not among the data
