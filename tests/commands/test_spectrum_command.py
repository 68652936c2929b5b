"""``captum-ablate spectrum``, run in this process on the demo's network and on an own one."""

from __future__ import annotations

import sys

import pandas as pd
import pytest
import torch

from captum_ablate import activation_spectrum, demo_data
from captum_ablate.commands import main as cli

CODE = """
import torch
from torch import nn

def make():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(90, 80), nn.Tanh(), nn.Dropout(0.3), nn.Linear(80, 4))

def data():
    torch.manual_seed(2)
    return torch.randn(400, 90) * torch.arange(1, 91) ** -0.7, torch.arange(400) % 4
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module own_spectrum_code in the current folder, named as the options want it."""
    (tmp_path / "own_spectrum_code.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield ["spectrum", "--quiet", "--model", "own_spectrum_code:make", "--data", "own_spectrum_code:data"]
    sys.modules.pop("own_spectrum_code", None)


def test_an_own_model_gets_the_figures_of_the_function(own, tmp_path, capsys):
    wanted = ["--layer", "0", "--layer", "1", "--replicates", "20", "--out", "found"]
    assert cli.main([*own, *wanted]) == 0
    out = capsys.readouterr().out
    code = sys.modules["own_spectrum_code"]
    expected = activation_spectrum(code.make().eval(), "1", code.data(), replicates=20)
    layers = pd.read_csv(tmp_path / "found" / "layers.csv")
    assert layers["layer"].astype(str).tolist() == ["0", "1"]
    assert layers["alpha"][1] == pytest.approx(expected.alpha)
    assert layers["participation_ratio"][1] == pytest.approx(expected.participation_ratio)
    assert f"{expected.alpha:.2f} [" in out
    assert "do the exponents of 2 layers differ? Cochran's Q" in out
    eigenvalues = pd.read_csv(tmp_path / "found" / "eigenvalues.csv")
    assert len(eigenvalues) == 160
    assert (tmp_path / "found" / "spectrum.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_layer_the_models_layers_are_listed(own, capsys):
    assert cli.main(own) == 2
    assert "name at least one layer with --layer; layers that run once: 0, 1, 2, 3" in capsys.readouterr().err


def test_a_narrow_layer_is_refused_with_its_reason_and_keeps_its_participation_ratio(own, tmp_path, capsys):
    assert cli.main([*own, "--layer", "3"]) == 0
    out = capsys.readouterr().out
    assert "3: no fit, too narrow for a fit: 4 units and 400 samples" in out
    assert "fewer than two layers have a bootstrapped exponent" in out
    assert pd.read_csv(tmp_path / "captum-ablate-spectrum" / "layers.csv")["participation_ratio"][0] > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layer", "9"], "the model has no layer '9'"),
        (["--layer", "1", "--fit-range", "5", "2"], "fit_range must be"),
        (["--layer", "1", "--stimulus-dim", "0"], "stimulus_dim must be"),
    ],
)
def test_wrong_options_are_told_with_status_2(own, arguments, message, capsys):
    assert cli.main([*own, *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"captum-ablate: {message}")


def test_without_a_model_the_demos_network_is_looked_at(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(demo_data.RECIPES, "digits", demo_data.Recipe(epochs=1))
    state = torch.get_rng_state()
    assert cli.main(["spectrum", "--quiet", "--replicates", "5", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "digits, 800 samples" in out
    assert "features.relu1" in out
    assert "hidden.relu" in out
    assert "features.relu1: no fit" in out
    assert torch.equal(torch.get_rng_state(), state)
