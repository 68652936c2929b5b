"""Fixtures of the evaluation: a small network and a comparison of attributions of every kind."""

from __future__ import annotations

import pytest
import torch
from all_kinds import compared
from torch import nn

pytest.register_assert_rewrite("curve_checks")


@pytest.fixture(scope="module")
def setting():
    """A ReLU net, data to evaluate on, and other data to rank on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(70, 5)
    with torch.no_grad():
        y = model(x + 0.4 * torch.randn(70, 5)).argmax(1)
    return model, (x, y), (torch.randn(40, 5), torch.arange(40) % 3)


@pytest.fixture(scope="module")
def comparison(setting):
    return compared(setting)


@pytest.fixture(scope="module")
def in_sample(setting):
    return compared(setting, ranking=False)
