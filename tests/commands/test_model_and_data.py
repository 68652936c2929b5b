"""The model and data of a command: objects named as module:name, and the demo's network where none is named."""

from __future__ import annotations

import argparse
import re
import sys

import pytest
import torch
from torch import nn

from captum_ablate import demo_data
from captum_ablate.commands import model_and_data

CODE = """
import torch
from torch import nn

net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5))
data = (torch.zeros(6, 3), torch.arange(6) % 2)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 2)

def make():
    return net

def make_data():
    return data

def broken():
    raise RuntimeError("no weights here")

number = 3
"""


def options(*arguments):
    parser = argparse.ArgumentParser()
    model_and_data.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A file my_own_code.py in the current folder."""
    file = tmp_path / "my_own_code.py"
    file.write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_own_code", raising=False)
    yield file
    sys.modules.pop("my_own_code", None)


@pytest.mark.parametrize("model", ["my_own_code:make", "my_own_code:net", "my_own_code.py:make", "my_own_code:Net"])
@pytest.mark.parametrize("data", ["my_own_code:data", "my_own_code:make_data"])
def test_an_own_model_and_data_are_found_by_name_in_the_current_folder(code, model, data):
    found = model_and_data.load(options("--model", model, "--data", data))
    assert isinstance(found.model, nn.Module)
    assert not found.model.training
    assert [tuple(part.shape) for part in found.data] == [(6, 3), (6,)]
    assert found.name == model


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--model", "my_own_code:make"], ValueError, "--model needs --data too"),
        (["--data", "my_own_code:data"], ValueError, "--data needs --model too"),
        (["--model", "my_own_code", "--data", "my_own_code:data"], ValueError, "got 'my_own_code'"),
        (["--model", "my_own_code:mak", "--data", "my_own_code:data"], ValueError, "has no 'mak'; nearest: make"),
        (["--model", "my_own_code:number", "--data", "my_own_code:data"], TypeError, "got int"),
        (["--model", "my_own_code:make_data", "--data", "my_own_code:data"], TypeError, "an nn.Module; got tuple"),
        (["--model", "my_own_code:broken", "--data", "my_own_code:data"], ValueError, "RuntimeError: no weights here"),
        (["--model", "absent.py:make", "--data", "my_own_code:data"], FileNotFoundError, "no file absent.py"),
        (["--model", "absent_module:make", "--data", "my_own_code:data"], ImportError, "absent_module"),
    ],
)
def test_what_cannot_be_loaded_is_told(code, arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        model_and_data.load(options(*arguments))


def test_labels_are_asked_for_where_a_command_needs_them(code):
    code.write_text(CODE + "\nalone = data[0]\n")
    arguments = options("--model", "my_own_code:make", "--data", "my_own_code:alone")
    assert isinstance(model_and_data.load(arguments).data, torch.Tensor)
    with pytest.raises(
        TypeError, match=r"--data my_own_code:alone is a Tensor without labels.*a tuple \(inputs, labels"
    ):
        model_and_data.load(arguments, needs_labels=True)


def test_an_error_in_the_users_function_says_where(code):
    with pytest.raises(ValueError, match=r"my_own_code\.py, line 20\)"):
        model_and_data.load(options("--model", "my_own_code:broken", "--data", "my_own_code:data"))


def test_without_names_the_demos_network_is_trained_and_held_out_images_are_given(monkeypatch):
    monkeypatch.setitem(demo_data.RECIPES, "digits", demo_data.Recipe(epochs=1))
    found = model_and_data.load(options("--quiet"))
    images, labels = found.data
    split = demo_data.load("digits")
    assert len(images) == len(labels) == len(split.rank.labels) + len(split.evaluate.labels)
    assert torch.equal(images[: len(split.rank.images)], split.rank.images)
    assert not found.model.training
    assert "digits" in found.name
