"""The command runs one paper at the asked scale."""

from __future__ import annotations

import pytest

from benchmarks.papers import __main__ as command
from benchmarks.papers.common.scale import Scale


def test_the_command_runs_one_paper_at_the_asked_scale(monkeypatch) -> None:
    ran = []

    class Paper:
        @staticmethod
        def run(scale: Scale) -> None:
            ran.append(scale)

    monkeypatch.setattr(command, "import_module", lambda name: {"benchmarks.papers.hayne.page": Paper}[name])
    for options in ([], ["--quick"], ["--full"]):
        command.main(["hayne", *options])
    assert ran == [Scale.NORMAL, Scale.QUICK, Scale.FULL]
    with pytest.raises(SystemExit):
        command.main(["hayne", "--quick", "--full"])


def test_scales_pick_their_sizes() -> None:
    assert [scale.pick(1, 2, 3) for scale in Scale] == [1, 2, 3]
    assert [scale.pick(1, 2) for scale in Scale] == [1, 2, 2]
    assert [scale.option for scale in Scale] == ["--quick", "", "--full"]
