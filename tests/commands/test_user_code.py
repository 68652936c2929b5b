"""The user's own model, data and attribute: found by name, and their mistakes told in a line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_ablate.commands.main import main

X, Y = torch.randn(30, 12, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


CODE = """
import torch
from torch import nn

with open("imports", "a") as log:
    log.write("x")

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 70), nn.ReLU(), nn.Linear(70, 3))

def ragged():
    return torch.utils.data.DataLoader([(torch.zeros(12 + i % 2), 0) for i in range(8)], batch_size=4)

class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(x) + self.absent

wrong = torch.randn(9, 5), torch.arange(9) % 3
doubles = torch.randn(9, 12).double(), torch.arange(9) % 3
batches = ((torch.randn(9, 12), torch.arange(9) % 3) for _ in range(2))
half = torch.arange(15) % 2

def attribute(n):
    return torch.zeros(n)
"""


@pytest.fixture
def own(here):
    (here / "newcomer.py").write_text(CODE)
    np.savez("mine.npz", images=X.numpy(), labels=Y.numpy())
    (here / "bad.py").write_text("def make(:\n")
    (here / "boom.py").write_text("raise RuntimeError('boom')\n")
    (here / "needs.py").write_text("import not_there_at_all\n")


@pytest.mark.parametrize("command", ["spectrum --layer 1 --fit-range 1 5", "midrange"])
def test_both_commands_take_a_file(own, here, command):
    name, *options = command.split()
    assert main([name, "--quiet", "--model", "newcomer.py:make", "--data", "mine.npz", "--out", "out", *options]) == 0
    assert len(list((here / "out").iterdir())) >= 3


def test_a_file_of_code_that_two_options_name_runs_once(own, here):
    options = ["--model", "newcomer.py:make", "--data", "newcomer.py:doubles"]
    main(["midrange", "--quiet", *options])
    assert (here / "imports").read_text() == "x"


@pytest.mark.parametrize("command", ["spectrum", "midrange"])
@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (
            "newcomer.py:make",
            "newcomer.py:wrong",
            "the model newcomer.py:make cannot run on the data newcomer.py:wrong",
        ),
        ("newcomer.py:make", "newcomer.py:doubles", "RuntimeError: mat1 and mat2 must have the same dtype"),
        ("newcomer.py:Broken", "mine.npz", "AttributeError: 'Broken' object has no attribute 'absent'"),
        ("newcomer.py:make", "newcomer.py:ragged", "the data newcomer.py:ragged cannot be read: RuntimeError: stack"),
        ("newcomer.py:make", "absent.npz", "there is no file absent.npz"),
        ("mine.npz", "mine.npz", "--model mine.npz is a file of weights or a folder, not a model"),
        ("bad.py:make", "mine.npz", "bad.py cannot be imported: SyntaxError: invalid syntax (bad.py, line 1)"),
        ("boom:make", "mine.npz", "boom cannot be imported: RuntimeError: boom ("),
        (
            "needs:make",
            "mine.npz",
            "needs needs a module that is not installed: ModuleNotFoundError: No module named",
        ),
        ("nowhere:make", "mine.npz", "there is no module 'nowhere', neither installed nor as nowhere.py in"),
    ],
)
def test_a_mistake_is_told_in_a_line_without_a_traceback(own, command, model, data, message, capsys):
    assert main([command, "--quiet", "--model", model, "--data", data]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("captum-ablate: ")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "newcomer.py:batches"], "is a generator, which can be read only once"),
        (["--data", "mine.npz", "--attribute", "newcomer.py:half"], "must have one entry for each of the 30 samples"),
        (["--data", "mine.npz", "--attribute", "newcomer.py:attribute"], "missing 1 required positional argument: 'n'"),
        (["--data", "mine.npz", "--out", "newcomer.py"], "--out must name a folder; newcomer.py is a file"),
    ],
)
def test_midrange_tells_before_it_writes(own, here, options, message, capsys):
    assert main(["midrange", "--quiet", "--model", "newcomer.py:make", "--out", "out", *options]) == 2
    assert message in capsys.readouterr().err
    assert not any((here / "out").iterdir()) if (here / "out").exists() else True


def test_spectra_that_cannot_be_compared_are_written_all_the_same(own, here, capsys):
    layers = ["--layer", "0", "--layer", "1", "--fit-range", "1", "5", "--replicates", "2"]
    options = ["--model", "newcomer.py:make", "--data", "mine.npz", "--out", "out", *layers]
    assert main(["spectrum", "--quiet", *options]) == 0
    assert "2 exponents are not compared: that needs fewer than 40 layers" in capsys.readouterr().out
    assert (here / "out" / "layers.csv").is_file()
