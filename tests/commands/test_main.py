"""The command line itself: its commands, help and version, and the arguments that it refuses."""

from __future__ import annotations

import pytest

from captum_ablate import __version__
from captum_ablate.commands import main as cli


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["demo", "--data", "imagenet"], "invalid choice: 'imagenet'"),
        (["demo", "--reference", "median"], "invalid choice: 'median'"),
        (["demo", "--steps", "many"], "invalid int value: 'many'"),
        (["demo", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["dance"], "invalid choice: 'dance'"),
    ],
)
def test_wrong_arguments_are_refused_with_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("captum-ablate: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("error", [ValueError("two\nlines"), OSError(), TypeError("  ")])
def test_an_error_is_one_line_with_status_2(error, monkeypatch, capsys):
    def failing(options):
        raise error

    monkeypatch.setattr(cli.demo, "_run", failing)
    assert cli.main(["demo"]) == 2
    written = capsys.readouterr().err
    assert written == f"captum-ablate: {' '.join(str(error).split()) or type(error).__name__}\n"


def test_help_and_version_are_given(capsys):
    for arguments in (["--version"], ["--help"], ["demo", "--help"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 0
    out = capsys.readouterr().out
    assert __version__ in out
    for option in ("--data", "--layer", "--steps", "--reference", "--out"):
        assert option in out
