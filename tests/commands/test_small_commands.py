"""``captum-ablate layers``, ``methods``, ``report`` and ``combine``: what they print and write, and their errors."""

from __future__ import annotations

import sys

import pandas as pd
import pytest
import torch
from own_code import CODE

from captum_ablate import Comparison
from captum_ablate.attr.catalogue import CATALOGUE
from captum_ablate.commands.main import main


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "my_code.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_code", None)
    yield tmp_path
    sys.modules.pop("my_code", None)


@pytest.fixture
def runs():
    """Two runs, of two networks; the second has two references."""
    for model, out, more in (
        ("make", "first", []),
        ("other", "second", ["--reference", "mean", "--reference", "zero"]),
    ):
        arguments = ["--model", f"my_code:{model}", "--data", "my_code:load", "--layer", "1", "--out", out, *more]
        options = ["--methods", "entropy,mutual-information", "--random", "3", "--steps", "5", "--quiet"]
        assert main(["compare", *arguments, *options]) == 0


@pytest.mark.parametrize("inputs", [["--input-shape", "6"], ["--data", "my_code:load"], ["--data", "my_code:loader"]])
def test_layers_are_listed_with_shapes_and_units(inputs, capsys):
    assert main(["layers", "--model", "my_code:make", *inputs]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "type", "output_shape", "units", "calls"]
    assert lines[2].split() == ["1", "ReLU", "(2,", "10)", "10", "1"]


def test_without_inputs_names_and_types_are_listed(capsys):
    assert main(["layers", "--model", "my_code:make"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].split() == ["0", "Linear"]
    assert "shapes and units need --data, or --input-shape" in out


def test_an_input_of_another_shape_is_told(capsys):
    assert main(["layers", "--model", "my_code:make", "--input-shape", "5"]) == 2
    assert capsys.readouterr().err.startswith("captum-ablate: ")


def test_every_method_is_listed_in_a_line(capsys):
    assert main(["methods"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert len(lines) == len(CATALOGUE) + 2
    assert max(map(len, lines)) <= 110
    for entry, line in zip(CATALOGUE, lines[1:], strict=False):
        assert line.startswith("*" if entry.is_default else " ")
        assert all(text in line for text in (entry.name, entry.what, entry.cost, entry.source))


def test_reports_are_written_anew(here, runs, capsys):
    for file in here.glob("*/*/report.html"):
        file.unlink()
    (here / "first" / "1--zero" / "leaderboard.csv").unlink()
    assert main(["report", "first", "second/1--mean"]) == 0
    out = capsys.readouterr().out
    written = {str(file.relative_to(here)) for file in here.glob("*/*/report.html")}
    assert written == {"first/1--zero/report.html", "second/1--mean/report.html"}
    for name in ("first/1--zero", "second/1--mean"):
        comparison = Comparison.load(name)
        assert str(comparison) in out
        assert comparison.verdict in out
    board = pd.read_csv("first/1--zero/leaderboard.csv")
    assert board["gap"].tolist() == pytest.approx(Comparison.load("first/1--zero").leaderboard["gap"].tolist())


def test_reports_are_printed_for_latex(runs, capsys):
    capsys.readouterr()
    assert main(["report", "second", "--latex"]) == 0
    out = capsys.readouterr().out
    assert out.count(r"\begin{tabular}") == 2
    assert Comparison.load("second/1--mean").to_latex() in out


def test_networks_are_combined(here, runs, capsys):
    assert main(["combine", "first", "second", "--out", "both.html"]) == 0
    out = capsys.readouterr().out
    assert "zero reference, accuracy: 2 networks, 2 comparisons" in out
    assert "mean reference, accuracy: 1 network, 1 comparison" in out
    assert "<html" in (here / "both.html").read_text()
    assert main(["combine", "first", "second", "--latex"]) == 0
    assert r"\begin{tabular}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "absent"], "absent is no folder; captum-ablate compare --out absent writes some"),
        (["report", "."], ". holds no saved comparison"),
        (["combine", "absent"], "absent is no folder"),
        (["layers", "--model", "my_code:mak"], "my_code has no 'mak'; nearest: make"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(arguments, message, capsys):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_network_named_twice_is_refused(runs, capsys):
    assert main(["combine", "first", "first/"]) == 2
    assert "a folder is named twice, and would count as two networks" in capsys.readouterr().err


def test_a_damaged_comparison_is_told(here, runs, capsys):
    (here / "first" / "1--zero" / "comparison.json").write_text("{")
    assert main(["report", "first"]) == 2
    assert "the saved comparison in 'first/1--zero' is damaged" in capsys.readouterr().err


def test_a_warning_is_one_line_and_comes_once(monkeypatch, capsys):
    import warnings

    from captum_ablate.commands import methods

    def warning(options):
        for _ in range(2):
            warnings.warn("two\nlines", UserWarning, stacklevel=1)
        assert torch.is_grad_enabled()

    monkeypatch.setattr(methods, "_run", warning)
    assert main(["methods"]) == 0
    assert capsys.readouterr().err == "captum-ablate: warning: two lines\n"
