"""Data in a file of the user's: what is read, and the errors where it cannot be."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from captum_ablate.commands import data_file

X, Y = torch.randn(30, 12, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("inputs", data_file.INPUTS)
@pytest.mark.parametrize("labels", data_file.LABELS)
def test_arrays_are_found_by_their_usual_names(inputs, labels):
    np.savez("mine.npz", **{inputs: X.numpy(), labels: Y.numpy(), "other": np.zeros(3)})
    x, y = data_file.read("mine.npz", "--data")
    assert torch.equal(x, X)
    assert torch.equal(y, Y)


@pytest.mark.parametrize("saved", [(X, Y), [X, Y], {"images": X, "target": Y}])
def test_tensors_are_read_as_pair_or_by_name(saved):
    torch.save(saved, "mine.pt")
    x, y = data_file.read("mine.pt", "--data")
    assert torch.equal(x, X)
    assert torch.equal(y, Y)


def test_inputs_alone_are_enough_and_numpys_doubles_become_floats():
    torch.save(X, "mine.pth")
    assert torch.equal(data_file.read("mine.pth", "--data"), X)
    np.savez("mine.npz", x=X.double().numpy())
    assert torch.equal(data_file.read("mine.npz", "--data"), X)


@pytest.mark.parametrize(
    ("write", "error", "message"),
    [
        (lambda: None, FileNotFoundError, "there is no file mine.npz (--data)"),
        (lambda: np.savez("mine.npz", a=X, b=Y), ValueError, "inputs under one of the names inputs, images"),
        (lambda: np.savez("mine.npz", x=np.array([{}])), ValueError, "its array 'x' holds Python objects, not numbers"),
        (lambda: np.savez("mine.npz", x=X, y=np.array(["a"] * 30)), ValueError, "its array 'y' holds <U1, not numbers"),
        (
            lambda: np.savez("mine.npz", x=X, y=Y[:20]),
            ValueError,
            "one label for each of its 30 inputs; its labels have",
        ),
        (lambda: np.savez("mine.npz", x=X, y=3), ValueError, "its labels have shape ()"),
        (
            lambda: np.savez("mine.npz", x=3.0, y=Y),
            ValueError,
            "inputs [n, ...], a row for each sample; they are a single",
        ),
        (lambda: np.savez("mine.npz"), ValueError, "it has nothing"),
        (lambda: open("mine.npz", "w").close(), ValueError, "--data mine.npz is an empty file"),
        (lambda: open("mine.npz", "w").write("hello"), ValueError, "no .npz file of plain arrays"),  # noqa: SIM115
    ],
)
def test_arrays_that_cannot_be_used_are_told(write, error, message):
    write()
    with pytest.raises(error, match=re.escape(message)):
        data_file.read("mine.npz", "--data")


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
        data_file.read("mine.pt", "--data")


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (
            X,
            "holds inputs (30, 12) but no labels, and this command needs one integer class for each sample",
        ),
        ({"inputs": X}, "but no labels"),
        ((X, None), "but no labels"),
        (
            (X, Y.float()),
            "target (--data mine.pt) must hold one integer class per sample, [n]; got torch.float32 (30,)",
        ),
        ((X, nn.functional.one_hot(Y)), "got torch.int64 (30, 3)"),
    ],
)
def test_labels_are_asked_for_where_a_command_needs_them(saved, message):
    torch.save(saved, "mine.pt")
    data_file.read("mine.pt", "--data")
    with pytest.raises(ValueError, match=re.escape(message)):
        data_file.read("mine.pt", "--data", needs_labels=True)


@pytest.mark.parametrize("name", ["mine.npy", "mine.csv", "mine"])
def test_a_file_of_another_kind_is_told_what_can_be_read(here, name):
    (here / name).write_text("1,2")
    assert data_file.is_file_name(name)
    with pytest.raises(ValueError, match=r"must end in \.npz, \.pt or \.pth: numpy\.savez\("):
        data_file.read(name, "--data")


@pytest.mark.parametrize("content", [b"hello", b"\x80\x02junk"])
def test_a_file_of_something_else_is_told(here, content):
    (here / "mine.pt").write_bytes(content)
    with pytest.raises(ValueError, match="must hold tensors alone"):
        data_file.read("mine.pt", "--data")


def test_a_folder_comes_with_the_prefix_that_reads_images(here):
    (here / "photos").mkdir()
    with pytest.raises(ValueError, match=r"is a folder.*--data imagefolder:photos .*--data my_code:load"):
        data_file.read("photos", "--data")
