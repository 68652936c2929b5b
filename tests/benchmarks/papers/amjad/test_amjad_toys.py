"""Twins and XOR have known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.papers.amjad import toys
from benchmarks.papers.common.networks import mlp


def test_twins_leave_the_network_as_it_was():
    network = mlp(6, hidden=(8, 5), classes=3, seed=1).eval()
    wide = toys.doubled(network, "linear1", "linear2")
    inputs = torch.randn(20, 6)
    with torch.no_grad():
        np.testing.assert_allclose(wide(inputs), network(inputs), atol=1e-6)
        shown = wide.act1(wide.linear1(inputs))
    assert shown.shape == (20, 16)
    assert torch.equal(shown[:, ::2], shown[:, 1::2])
    assert network.linear1.out_features == 8


def test_xor_is_synergy_alone():
    synergy, single, left = toys.xor()
    assert synergy.synergy[0, 1].item() == pytest.approx(1, abs=1e-12)
    assert single == pytest.approx(0, abs=1e-12)
    assert left == pytest.approx(0.5)
