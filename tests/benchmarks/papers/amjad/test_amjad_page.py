"""The protocol runs at quick scale and writes its page."""

from __future__ import annotations

import pytest

from benchmarks.papers.common.scale import Scale


@pytest.mark.slow
def test_the_protocol_runs_at_quick_scale(data_folder, capsys):
    from benchmarks.papers.amjad import page

    page.run(Scale.QUICK)
    written = capsys.readouterr().out.split("wrote ")[-1].strip()
    with open(written) as file:
        text = file.read()
    assert all(f"C2.{k}" in text for k in range(1, 8))
    assert text.count("![") == 3
