"""``captum-ablate demo``, run in this process with tiny settings."""

from __future__ import annotations

import pandas as pd
import pytest

from captum_ablate import Comparison, demo_data
from captum_ablate.commands import main as cli

FILES = {"curves.png", "gaps.png", "leaderboard.csv", "report.html", "comparison.json", "comparison.npz"}


def run(*arguments):
    return cli.main(["demo", "--quiet", "--steps", "2", *arguments])


@pytest.fixture
def short(monkeypatch):
    """One epoch of training, for tests of all but the accuracy."""
    for name in demo_data.RECIPES:
        monkeypatch.setitem(demo_data.RECIPES, name, demo_data.Recipe(epochs=1))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of one run on the digits."""
    folder = tmp_path_factory.mktemp("demo") / "new" / "out"
    assert run("--out", str(folder)) == 0
    return folder


def test_the_demo_writes_pictures_and_tables(finished):
    assert {file.name for file in finished.iterdir()} == FILES
    for name in ("curves.png", "gaps.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    assert "<html" in (finished / "report.html").read_text(encoding="utf-8")


def test_the_demo_compares_at_least_twelve_methods_out_of_sample(finished):
    comparison = Comparison.load(finished)
    assert len(comparison.curves) >= 12
    assert not comparison.failed
    assert not comparison.provenance.in_sample
    assert comparison.provenance.intact > 0.95
    assert {"mutual information", "conductance", "DeepLift", "internal influence", "random ranking"} <= set(
        comparison.curves
    )
    board = pd.read_csv(finished / "leaderboard.csv")
    assert board["method"].tolist() == comparison.leaderboard["method"].tolist()
    assert board["gap"].tolist() == pytest.approx(comparison.leaderboard["gap"].tolist(), rel=1e-12)


def test_in_the_demo_a_random_ranking_is_not_among_the_best(finished):
    methods = Comparison.load(finished).leaderboard["method"].tolist()
    assert methods.index("random ranking") >= len(methods) // 2


def test_the_demo_prints_the_board_and_says_where_the_files_are(short, tmp_path, capsys):
    assert run("--out", str(tmp_path), "--layer", "hidden.linear", "--reference", "mean", "--seed", "3") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert str(tmp_path) in out
    assert "hidden.linear (128 units, mean reference, accuracy" in out
    assert "gap = deletion + insertion" in out
    for name in FILES:
        assert name in out
    assert str(Comparison.load(tmp_path)) in out
    assert Comparison.load(tmp_path)["random ranking"].n_ablated.tolist() == [0, 64, 128]


def test_by_default_the_demo_writes_into_the_home_folder_and_says_so(short, tmp_path, monkeypatch, capsys):
    home, checkout = tmp_path / "home", tmp_path / "checkout"
    home.mkdir()
    checkout.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))  # HOME of Windows
    monkeypatch.chdir(checkout)
    assert run() == 0
    folder = home / "captum-ablate-demo"
    assert {file.name for file in folder.iterdir()} == FILES
    assert not any(checkout.iterdir())
    out = capsys.readouterr().out
    assert f"wrote to {folder}:" in out
    assert (folder / "report.html").as_uri() in out


def test_a_wrong_layer_is_told_before_any_training(tmp_path, capsys):
    assert run("--layer", "hiden.relu", "--out", str(tmp_path / "out")) == 2
    out, err = capsys.readouterr()
    assert err.startswith("captum-ablate: the model has no layer 'hiden.relu'; nearest: ")
    assert "'hidden.relu'" in err
    assert "Traceback" not in err
    assert "images to train on" not in out
    assert not (tmp_path / "out").exists()


def test_steps_out_of_range_are_told_with_status_2(short, tmp_path, capsys):
    assert cli.main(["demo", "--quiet", "--steps", "0", "--out", str(tmp_path)]) == 2
    assert "captum-ablate: steps must be at least 1" in capsys.readouterr().err


def test_steps_out_of_range_are_told_before_any_training(short, tmp_path, capsys):
    cli.main(["demo", "--quiet", "--steps", "0", "--out", str(tmp_path)])
    assert "images to train on" not in capsys.readouterr().out


def test_a_seed_out_of_range_is_told_with_status_2(short, tmp_path, capsys):
    assert run("--seed", "-1", "--out", str(tmp_path)) == 2
    assert capsys.readouterr().err.startswith("captum-ablate: ")


def test_a_folder_that_cannot_be_made_is_told_with_status_2(short, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("in the way")
    assert run("--out", str(file)) == 2
    assert "captum-ablate: " in capsys.readouterr().err
    assert file.read_text() == "in the way"


def test_missing_data_are_told_with_status_2(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CAPTUM_ABLATE_DATA", str(tmp_path / "nowhere"))
    assert run("--data", "mnist", "--out", str(tmp_path / "out")) == 2
    assert "captum-ablate: " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("data", ["mnist", "fashion", "cifar10"])
def test_the_demo_runs_on_real_data(data_folder, short, tmp_path, data):
    assert run("--data", data, "--out", str(tmp_path)) == 0
    comparison = Comparison.load(tmp_path)
    assert len(comparison.curves) >= 12
    assert comparison.provenance.n == 1000
