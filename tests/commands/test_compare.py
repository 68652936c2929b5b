"""``captum-ablate compare``: the results are the library's, a run goes on where it stopped, mistakes are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from own_code import CODE

from captum_ablate import Comparison, CumulativeAblationEvaluator, LayerMutualInformation
from captum_ablate.commands import compare_run, halves, user_code
from captum_ablate.commands.main import main

BASE = ["compare", "--model", "my_code:make", "--data", "my_code:load", "--out", "run", "--quiet"]
SHORT = ["--layer", "1", "--random", "3", "--steps", "5"]
QUICK = [*SHORT, "--methods", "mutual-information,random-ranking"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "my_code.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("my_code", None)
    yield tmp_path
    sys.modules.pop("my_code", None)


def test_the_result_is_that_of_the_library_on_the_two_halves(here, capsys):
    assert main([*BASE, *QUICK]) == 0
    out, err = capsys.readouterr()
    found = Comparison.load(here / "run" / "1--zero")
    code = sys.modules["my_code"]
    model = code.make().eval()
    ranking, evaluation = halves.halves(code.load(), 0)
    evaluator = CumulativeAblationEvaluator(model, "1", n_random=3, steps=5)
    methods = {"mutual information": LayerMutualInformation(model, "1")}
    expected = evaluator.compare(methods, evaluation, ranking_data=ranking)["mutual information"]
    assert torch.equal(found["mutual information"].values, expected.values)
    assert found["mutual information"].gap == expected.gap
    assert not found.provenance.in_sample
    assert "40 samples to rank on and 40 samples to evaluate on; 2 methods, 1 comparison" in out
    assert str(found) in out
    assert found.verdict in out
    assert err == ""
    board = pd.read_csv(here / "run" / "1--zero" / "leaderboard.csv")
    assert board["method"].tolist() == found.leaderboard["method"].tolist()
    page = (here / "run" / "1--zero" / "report.html").read_text()
    assert "<html" in page
    assert "<code>captum-ablate compare --model" in page


def test_several_layers_and_references_are_comparisons_of_their_own(here, capsys):
    arguments = [*BASE, *QUICK, "--layer", "3", "--reference", "zero", "--reference", "mean", "--metric", "margin"]
    arguments[arguments.index("--methods") + 1] += ",LRP"  # which has no rule for the layer 1, a ReLU
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert out.count("not applicable: LRP (LayerLRP has no rule for ReLU '1'") == 1
    folders = {file.parent.name for file in here.glob("run/*/comparison.json")}
    assert folders == {"1--zero", "1--mean", "3--zero", "3--mean"}
    assert Comparison.load("run/3--mean").provenance.metric == "margin"
    assert "[4] 3, mean reference" in out
    assert "mutual information is among the best in" in out
    assert (here / "run" / "report.html").is_file()
    settings = json.loads((here / "run" / "run.json").read_text())
    assert settings["command"] == f"captum-ablate {' '.join(arguments)}"


def test_other_data_to_rank_on_leave_all_data_to_evaluate_on(here, capsys):
    assert main([*BASE, *QUICK, "--ranking-data", "my_code:few"]) == 0
    assert Comparison.load("run/1--zero").provenance.n == 80


def test_ranked_on_the_same_data_it_says_in_sample_or_nothing_overlaps(here):
    assert main([*BASE, *QUICK, "--samples", "41"]) == 0
    assert Comparison.load("run/1--zero").provenance.n == 20


@pytest.mark.parametrize("data", ["my_code:loader", "data.pt"])
def test_a_loader_and_a_file_are_halved_like_tensors(here, data):
    torch.save(user_code.find_object("my_code:load")(), "data.pt")
    assert main([*BASE, *QUICK, "--data", data]) == 0
    assert Comparison.load("run/1--zero").provenance.n == 40


def test_own_methods_metrics_and_references_are_taken(here):
    own = ["--methods", "default,my_code:Mine,my_code.py:plain", "--metric", "my_code:steady", "--random", "2"]
    assert main([*BASE, "--layer", "1", *own, "--steps", "all"]) == 0
    found = Comparison.load("run/1--zero")
    assert {"Mine", "plain", "conductance", "GradientSHAP", "unit ablation"} <= set(found)
    assert found["plain"].order.tolist() == list(range(9, -1, -1))
    assert found.provenance.metric == "steady"
    assert len(found["plain"].n_ablated) == 11


def test_methods_are_ranked_again_on_resamples():
    assert main([*BASE, *QUICK, "--resamples", "4"]) == 0
    assert Comparison.load("run/1--zero").provenance.ranking_resamples == 4
    assert main([*BASE, *QUICK, "--resume"]) == 2


@pytest.mark.parametrize("number", ["1", "-3"])
def test_resamples_that_cannot_be_leave_no_folder(here, capsys, number):
    assert main([*BASE, *QUICK, "--resamples", number]) == 2
    assert "ranking_resamples must be" in capsys.readouterr().err
    assert not (here / "run").exists()


def test_a_finished_run_is_kept_and_a_layer_added(here, capsys, monkeypatch):
    assert main([*BASE, *QUICK]) == 0
    written = (here / "run" / "1--zero" / "comparison.npz").stat().st_mtime_ns
    assert main([*BASE, *QUICK, "--layer", "3", "--resume", "--batch-size", "7"]) == 0
    assert "2 comparisons, 1 of them finished before" in capsys.readouterr().out
    assert (here / "run" / "1--zero" / "comparison.npz").stat().st_mtime_ns == written
    assert (here / "run" / "3--zero" / "comparison.json").is_file()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ([], "--out run holds a run already; pass --resume"),
        (["--resume", "--steps", "4"], "with other settings: steps (5 there, 4 here). Name another folder"),
        (["--resume", "--model", "my_code:other"], "model (my_code:make there, my_code:other here); weights ("),
        (
            ["--resume", "--data", "my_code:few"],
            "data (my_code:load there, my_code:few here); digest of ranking data",
        ),
        (["--resume", "--methods", "entropy"], "methods (entropy only here)"),
    ],
)
def test_a_folder_with_another_run_is_refused(changed, message, capsys):
    assert main([*BASE, *QUICK]) == 0
    assert main([*BASE, *QUICK, *changed]) == 2
    err = capsys.readouterr().err
    assert err.startswith("captum-ablate: ")
    assert message in err
    assert err.count("\n") == 1


def test_changed_code_of_an_own_method_is_noticed(here, capsys):
    arguments = [*BASE, *SHORT, "--methods", "my_code:Mine"]
    assert main(arguments) == 0
    (here / "my_code.py").write_text(CODE + "\n# changed\n")
    assert main([*arguments, "--resume"]) == 2
    assert "own code (changed: my_code:Mine)" in capsys.readouterr().err


def test_changed_code_of_an_own_reference_is_noticed_and_references_are_added(here, capsys):
    assert main([*BASE, *QUICK, "--reference", "my_code:dim"]) == 0
    assert main([*BASE, *QUICK, "--resume"]) == 0  # with "zero", which is added
    (here / "my_code.py").write_text(CODE.replace("* 0.5", "* 0.4"))
    sys.modules.pop("my_code")
    assert main([*BASE, *QUICK, "--reference", "my_code:dim", "--resume"]) == 2
    assert "own code (changed: my_code:dim)" in capsys.readouterr().err


def test_a_report_that_a_crash_prevented_is_written_on_resume(here):
    assert main([*BASE, *QUICK]) == 0
    (here / "run" / "1--zero" / "report.html").unlink()
    assert main([*BASE, *QUICK, "--resume"]) == 0
    assert (here / "run" / "1--zero" / "report.html").is_file()


def test_resume_in_a_new_folder_starts_a_run():
    assert main([*BASE, *QUICK, "--resume"]) == 0


def test_results_that_no_run_made_are_not_written_into(here, capsys):
    assert main([*BASE, *QUICK]) == 0
    (here / "run" / "run.json").unlink()
    assert main([*BASE, *QUICK, "--resume"]) == 2
    assert "holds comparisons that no run of this command made" in capsys.readouterr().err
    (here / "run" / "run.json").write_text("{")
    assert main([*BASE, *QUICK, "--resume"]) == 2
    assert "run.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--layer", "9"], "the model has no layer '9'"),
        (["--methods", "conductanc"], "there is no method 'conductanc'; nearest: conductance"),
        (["--methods", ","], "--methods names no method"),
        (["--methods", "absent:Mine"], "the method absent:Mine cannot be used: there is no module 'absent'"),
        (["--methods", "my_code:Min"], "the method my_code:Min cannot be used: my_code has no 'Min'; nearest: Mine"),
        (["--methods", "my_code:number"], "the method my_code:number must be a class or a function; got int"),
        (["--methods", "my_code:Broken"], "the method my_code:Broken cannot be made: RuntimeError: no luck"),
        (["--reference", "median"], "reference must be"),
        (["--metric", "f1"], "metric must be one of"),
        (["--samples", "1"], "--samples must be at least 2; got 1"),
        (["--device", "abacus"], "--device abacus cannot be used: "),
        (
            ["--data", "my_code:many"],
            "the model has 3 outputs, for the classes 0 to 2, and the labels of the data my_code:many go",
        ),
        (["--random", "-1"], "n_random must be"),
        (["--model", "my_code:load"], "--model my_code:load must be or return an nn.Module; got tuple"),
    ],
)
def test_what_is_wrong_is_told_in_a_line_before_anything_is_written(here, changed, message, capsys):
    quick = SHORT if "--methods" in changed else QUICK
    assert main([*BASE, *quick, *changed]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (here / "run").exists() or not list(here.glob("run/*/*"))


def test_an_estimate_is_told_first(capsys):
    arguments = [one for one in (*BASE, *QUICK) if one != "--quiet"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "estimating 1 ..." in out
    assert "masks), " in out
    assert "[1/1] 1, zero reference, about " in out
    assert "sample/s" in err


def test_a_full_disk_is_told_in_a_line_and_loses_nothing(here, capsys, monkeypatch):
    assert main([*BASE, *QUICK]) == 0

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("numpy.savez_compressed", full)
        assert main([*BASE, *QUICK, "--layer", "3", "--resume"]) == 2
    err = capsys.readouterr().err
    assert "the comparison of 3, zero reference could not be saved: No space left on device" in err
    assert "To go on: captum-ablate compare" in err
    assert not list(here.glob("run/*/partial*"))
    assert Comparison.load("run/1--zero")["mutual information"]
    assert main([*BASE, *QUICK, "--layer", "3", "--resume"]) == 0


def test_a_folder_that_cannot_be_written_is_told_before_any_work(here, capsys):
    (here / "run").write_text("a file")
    assert main([*BASE, *QUICK]) == 2
    assert "--out must name a folder; run is a file" in capsys.readouterr().err


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(here, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare_run.Run, "_compare", interrupted)
    assert main([*BASE, *QUICK]) == 130
    err = capsys.readouterr().err
    assert err.startswith("captum-ablate: interrupted; what is finished is in run. To go on: captum-ablate compare")
    assert err.endswith("--resume\n")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_a_command_in_a_process_of_its_own_is_stopped_by_ctrl_c(here):
    import captum_ablate

    command = [sys.executable, "-m", "captum_ablate", *BASE, *SHORT]
    environment = {**os.environ, "PYTHONPATH": str(Path(captum_ablate.__file__).parents[1])}
    slow = subprocess.Popen([*command, "--methods", "my_code:slow"], cwd=here, env=environment, stderr=subprocess.PIPE)
    for _ in range(600):
        if (here / "ranking").exists():
            break
        time.sleep(0.1)
    slow.send_signal(signal.SIGINT)
    _, err = slow.communicate(timeout=60)
    assert slow.returncode == 130
    assert b"To go on: captum-ablate compare" in err
    assert b"Traceback" not in err
