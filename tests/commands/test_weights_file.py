"""Weights in a file: read in the forms that training scripts write, and loaded, or told where they do not fit."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from captum_ablate.commands import weights_file


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def net(width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_and_checkpoints_are_read(key, prefix):
    saved = {f"{prefix}{name}": value for name, value in net().state_dict().items()}
    torch.save(saved if key is None else {key: saved, "epoch": 3}, "w.pt")
    weights = weights_file.read("w.pt")
    model = net()
    weights_file.load(model, weights, "the model")
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert weights_file.classes_of(weights) == 2


def test_counters_of_batches_may_be_missing_as_in_old_files():
    weights = {name: value for name, value in net().state_dict().items() if "num_batches" not in name}
    weights_file.load(net(), weights, "the model")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("2.bias"), "the weights do not fit mine: 1 weight missing in the file, 2.bias"),
        (lambda w: w.update(extra=torch.zeros(1)), "1 weight unknown to the model, extra"),
        (lambda w: w.update({"2.bias": torch.zeros(5)}), "2.bias is (5,) in the file and (2,) in the model"),
        (
            lambda w: w.clear() or w.update(a=torch.zeros(1)),
            "missing in the file, 0.weight, 0.bias, 1.weight and 5 more",
        ),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    weights, model = net().state_dict(), net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    change(weights)
    with pytest.raises(ValueError, match=re.escape(message)):
        weights_file.load(model, weights, "mine")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_other_files_are_refused(here):
    with pytest.raises(FileNotFoundError, match=r"no file of weights absent\.pt"):
        weights_file.read("absent.pt")
    (here / "text.pt").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.pt cannot be read with torch\.load"):
        weights_file.read("text.pt")
    torch.save({"accuracy": 0.9}, "numbers.pt")
    with pytest.raises(ValueError, match="holds dict, and must hold weights by name"):
        weights_file.read("numbers.pt")
    torch.save(net(), "module.pt")
    with pytest.raises(ValueError, match="must hold weights alone"):
        weights_file.read("module.pt")
