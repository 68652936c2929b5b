"""The study runs at quick scale and writes its page."""

from __future__ import annotations

import pytest


@pytest.mark.slow
def test_the_whole_study_runs_at_quick_scale(data_folder, capsys):
    from benchmarks.papers.__main__ import main

    main(["dhamdhere", "--quick"])
    assert "dhamdhere.md" in capsys.readouterr().out
