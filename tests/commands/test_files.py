"""Data in a file of the user's: what is read, and what is told where it cannot be."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from captum_ablate.commands import files
from captum_ablate.commands.main import main

X, Y = torch.randn(30, 12, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("inputs", files.INPUTS)
@pytest.mark.parametrize("labels", files.LABELS)
def test_arrays_are_found_by_their_usual_names(inputs, labels):
    np.savez("mine.npz", **{inputs: X.numpy(), labels: Y.numpy(), "other": np.zeros(3)})
    x, y = files.read("mine.npz", "--data")
    assert torch.equal(x, X)
    assert torch.equal(y, Y)


@pytest.mark.parametrize("saved", [(X, Y), [X, Y], {"images": X, "target": Y}])
def test_tensors_are_read_as_pair_or_by_name(saved):
    torch.save(saved, "mine.pt")
    x, y = files.read("mine.pt", "--data")
    assert torch.equal(x, X)
    assert torch.equal(y, Y)


def test_inputs_alone_are_enough_and_numpys_doubles_become_floats():
    torch.save(X, "mine.pth")
    assert torch.equal(files.read("mine.pth", "--data"), X)
    np.savez("mine.npz", x=X.double().numpy())
    assert torch.equal(files.read("mine.npz", "--data"), X)


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (lambda: None, FileNotFoundError, "there is no file mine.npz (--data)"),
        (lambda: np.savez("mine.npz", a=X, b=Y), ValueError, "inputs under one of the names inputs, images"),
        (lambda: np.savez("mine.npz", x=np.array([{}])), ValueError, "no .npz file of plain arrays"),
        (lambda: open("mine.npz", "w").write("hello"), ValueError, "no .npz file of plain arrays"),  # noqa: SIM115
    ],
)
def test_arrays_that_cannot_be_used_are_told(write, error, message):
    write()
    with pytest.raises(error, match=re.escape(message)):
        files.read("mine.npz", "--data")


@pytest.mark.parametrize(
    ("saved", "error", "message"),
    [
        ([1, 2], TypeError, "it holds a list of int, int"),
        ((X, Y, Y), TypeError, "it holds a tuple of Tensor, Tensor, Tensor"),
        ({"a": X}, ValueError, "it has a"),
        (nn.Linear(2, 2), ValueError, "it must hold tensors alone"),
    ],
)
def test_tensors_that_cannot_be_used_are_told(saved, error, message):
    torch.save(saved, "mine.pt")
    with pytest.raises(error, match=re.escape(message)):
        files.read("mine.pt", "--data")


@pytest.mark.parametrize("content", [b"hello", b"", b"\x80\x02junk"])
def test_a_file_of_something_else_is_told(here, content):
    (here / "mine.pt").write_bytes(content)
    with pytest.raises(ValueError, match="must hold tensors alone"):
        files.read("mine.pt", "--data")


def test_a_folder_of_images_comes_with_the_function_that_reads_it(here):
    (here / "photos").mkdir()
    with pytest.raises(
        ValueError, match=r"is a folder(.|\n)*ImageFolder\('photos', prepare\)(.|\n)*--data my_code:load"
    ):
        files.read("photos", "--data")


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
        ("mine.npz", "mine.npz", "--model mine.npz is a file of weights or a folder, and no model"),
        ("bad.py:make", "mine.npz", "bad.py cannot be imported: SyntaxError: invalid syntax (bad.py, line 1)"),
        ("boom:make", "mine.npz", "boom cannot be imported: RuntimeError: boom ("),
        ("needs:make", "mine.npz", "needs needs a module that is not there: ModuleNotFoundError: No module named 'not"),
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
        (["--data", "newcomer.py:batches"], "gives a generator, which can be read only once"),
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
