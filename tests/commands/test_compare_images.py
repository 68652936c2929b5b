"""``captum-ablate compare`` on a folder of images and a network of torchvision: from files to a report."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_ablate import Comparison
from captum_ablate.commands.main import main

torchvision = pytest.importorskip("torchvision")
Image = pytest.importorskip("PIL.Image")

BASE = [
    "compare",
    "--model",
    "torchvision:squeezenet1_1:w.pt",
    "--layer",
    "features.12",
    "--data",
    "imagefolder:photos",
]
QUICK = [
    "--methods",
    "entropy,random-ranking",
    "--steps",
    "4",
    "--random",
    "2",
    "--out",
    "run",
    "--quiet",
    "--size",
    "32",
]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Twelve photos of two classes, and weights for them."""
    monkeypatch.chdir(tmp_path)
    torch.save(torchvision.models.squeezenet1_1(num_classes=2).state_dict(), "w.pt")
    draw = np.random.default_rng(0)
    for k in range(12):
        folder = tmp_path / "photos" / ("ant" if k % 2 else "bee")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{k}.png")
    return tmp_path


def test_photos_are_compared_and_bad_ones_counted(here, capsys):
    (here / "photos" / "ant" / "1.png").write_text("no image")
    assert main([*BASE, *QUICK]) == 2
    assert "1 of 12 images cannot be read: photos/ant/1.png" in capsys.readouterr().err
    assert main([*BASE, *QUICK, "--skip-bad"]) == 0
    out = capsys.readouterr().out
    assert "left out 1 of 12 images" in out
    assert "6 samples to rank on and 5 samples to evaluate on, 32 x 32, normalised by ImageNet's mean and std" in out
    assert Comparison.load("run/features.12--zero").provenance.n == 5
    assert main([*BASE, *QUICK, "--skip-bad", "--resume", "--size", "40"]) == 2
    assert "images (32 x 32, normalised by" in capsys.readouterr().err


def test_a_folder_with_other_classes_than_the_outputs_is_refused(here, capsys):
    (here / "photos" / "cat").mkdir()
    (here / "photos" / "bee" / "0.png").rename(here / "photos" / "cat" / "0.png")
    assert main([*BASE, *QUICK]) == 2
    assert "the model has 2 outputs, for the classes 0 to 1, and the labels of the data" in capsys.readouterr().err
    torch.save(torchvision.models.squeezenet1_1(num_classes=5).state_dict(), "w.pt")
    assert main([*BASE, *QUICK]) == 2
    assert "the model has 5 outputs and --data imagefolder:photos 3 subfolders" in capsys.readouterr().err
