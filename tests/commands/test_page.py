"""The commands on the page about commands run as they stand, one after the other, on the page's own code."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from captum_ablate.commands.main import main

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"
if not PAGE.exists():
    pytest.skip("the pages are not beside the tests", allow_module_level=True)


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_the_commands_of_the_page_run(tmp_path, monkeypatch, capsys):
    code = next(block for block in blocks("python") if block.startswith("# my_code.py"))
    (tmp_path / "my_code.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_code", None)
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(lines) >= 8
    try:
        for line in lines:
            program, *arguments = shlex.split(line, comments=True)
            assert program == "captum-ablate"
            assert main(arguments) == 0, f"{line}: {capsys.readouterr().err}"
    finally:
        sys.modules.pop("my_code", None)
    for name in ("run/report.html", "both/hidden.relu--zero/comparison.json", "both/features.relu2--mean/report.html"):
        assert (tmp_path / name).is_file()
    assert (tmp_path / "together.html").is_file()
