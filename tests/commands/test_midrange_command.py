"""``captum-ablate midrange`` on a user's own model and data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from captum_ablate.commands.main import main

CODE = """
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
images, labels = torch.randn(60, 3, 2, 2), torch.arange(60) % 3
data = [(images[:40], labels[:40]), (images[40:], labels[40:])]
vectors = (torch.randn(60, 12), labels)

def background():
    return torch.arange(60) % 2
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CODE)
    return ["midrange", "--model", "mine.py:model", "--quiet", "--out", "out"]


def test_midrange_writes_slices_composition_grids_and_indices(own, tmp_path, capsys):
    assert (
        main(
            [*own, "--data", "mine.py:data", "--attribute", "mine.py:background", "--bins", "4", "--classes", "0", "2"]
        )
        == 0
    )
    out = tmp_path / "out"
    names = {f"{kind}_{c}.png" for kind in ("levels", "images") for c in (0, 2)}
    names |= {"bands.png", "levels.csv", "midrange.csv", "midrange_indices.txt"}
    assert {file.name for file in out.iterdir()} == names
    levels = pd.read_csv(out / "levels.csv")
    assert len(levels) == 8
    assert {"class_2", "attribute_1", "lift_0", "association"} <= set(levels)
    assert levels.groupby("output")["n"].sum().tolist() == [60, 60]
    indices = np.loadtxt(out / "midrange_indices.txt", dtype=int, ndmin=1)
    assert sorted(set(pd.read_csv(out / "midrange.csv")["sample"])) == indices.tolist()
    told = capsys.readouterr().out
    assert f"logits of 3: {len(indices)} of 60 samples" in told
    assert "wrongly classified overall" in told


def test_midrange_of_inputs_that_are_no_images_has_no_grids(own, tmp_path):
    assert main([*own, "--data", "mine.py:vectors", "--classes", "1", "--mode", "range", "--band", "0.2", "0.8"]) == 0
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"levels_1.png", "bands.png", "levels.csv", "midrange.csv", "midrange_indices.txt"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--data", "mine.py:data", "--head", "2"], "head must be the last linear layer"),
        (["--data", "mine.py:data", "--classes", "7"], "--classes names [7]"),
        (["--data", "mine.py:data", "--attribute", "mine.py:images"], "--attribute mine.py:images"),
    ],
)
def test_midrange_says_what_is_wrong(own, capsys, options, text):
    assert main([*own, *options]) == 2
    assert text in capsys.readouterr().err
