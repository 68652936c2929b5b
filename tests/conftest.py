"""Fixtures for all tests: seeds, small nets and real digits; other real data only where a folder is named."""

from __future__ import annotations

import os
import random
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from captum_ablate.ablation import choose

DATA_VARIABLE = "CAPTUM_ABLATE_DATA"
STRICT_VARIABLE = "CAPTUM_ABLATE_STRICT"


@pytest.fixture(autouse=True)
def _seeds():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  the state that the library must give back is this one
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_figures_of_other_tests():
    """Close what the test before left open: some tests count figures."""
    plt.close("all")


@pytest.fixture(autouse=True)
def _execution(request, monkeypatch):
    """Make each fallback an error, but for tests marked ``may_fall_back``.

    A mark ``execution(name)`` asks for one execution, whatever it costs; without it, or with None, the engine chooses.
    """
    if request.node.get_closest_marker("may_fall_back") is None:
        monkeypatch.setenv(STRICT_VARIABLE, "1")
    asked = request.node.get_closest_marker("execution")
    if asked is not None:
        monkeypatch.setattr(choose, "FORCED", asked.args[0])


@pytest.fixture(scope="session")
def digits():
    """Real 8 x 8 digits: images ``[n, 1, 8, 8]`` in 0..1 and labels ``[n]``, shuffled once."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images = torch.tensor(bunch.images[order, None] / 16, dtype=torch.float32)
    return images, torch.tensor(bunch.target[order])


@pytest.fixture(scope="session")
def digits_net(digits):
    """A small net trained on 1,200 digits: conv1, relu1, pool1, conv2, relu2, flat, fc1, relu3, fc2."""
    images, labels = digits[0][:1200], digits[1][:1200]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential()
        for name, module in {
            "conv1": nn.Conv2d(1, 8, 3, padding=1),
            "relu1": nn.ReLU(),
            "pool1": nn.MaxPool2d(2),
            "conv2": nn.Conv2d(8, 16, 3),
            "relu2": nn.ReLU(),
            "flat": nn.Flatten(),
            "fc1": nn.Linear(64, 24),
            "relu3": nn.ReLU(),
            "fc2": nn.Linear(24, 10),
        }.items():
            net.add_module(name, module)
        optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(5):
            for part in torch.randperm(len(images)).split(60):
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(images[part]), labels[part]).backward()
                optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    net.eval()
    with torch.no_grad():
        accuracy = (net(digits[0][1200:]).argmax(1) == digits[1][1200:]).float().mean()
    assert accuracy > 0.9, f"the digits net has learned too little: accuracy {accuracy:.3f}"
    return net


@pytest.fixture
def small_digits(digits):
    """90 digits that the net was not trained on: images ``[n, 1, 8, 8]``, labels ``[n]``."""
    return digits[0][1200:1290], digits[1][1200:1290]


@pytest.fixture
def dense():
    """An untrained dense ReLU net 5 -> 7 -> 6 -> 3, in evaluation mode."""
    return nn.Sequential(
        nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3)
    ).eval()  # fmt: skip


@pytest.fixture
def dense_data():
    """60 samples of 5 features, with uneven classes 0, 1, 2."""
    x = torch.randn(60, 5)
    y = (x[:, 0] > 0.3).long() + (x[:, 1] > 0.8).long()
    assert set(y.tolist()) == {0, 1, 2}
    return x, y


@pytest.fixture(scope="session")
def data_folder():
    """The folder of real data sets, where the environment names one."""
    folder = os.environ.get(DATA_VARIABLE)
    if not folder:
        pytest.skip(f"{DATA_VARIABLE} names no folder of data sets")
    return Path(folder)


def pytest_terminal_summary(terminalreporter):
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if DATA_VARIABLE in str(r.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} tests skipped for want of data: set {DATA_VARIABLE} to their folder"
        )
