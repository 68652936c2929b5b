"""The quantiser's threshold and the bounds of the quantities."""

from __future__ import annotations

import torch

from benchmarks.papers.amjad.protocol import _violation, methods, plane
from benchmarks.papers.common.networks import mlp


def test_the_quantiser_of_a_sigmoid_splits_at_a_half():
    assert methods("sigmoid")["entropy"](mlp(4, activation="sigmoid"), "act1").quantiser.threshold == 0.5
    assert methods("relu")["mutual information"](mlp(4), "act1").quantiser.threshold == 0.0


def test_no_quantity_breaks_its_bounds():
    network, labels = mlp(6, hidden=(9, 9)).eval(), torch.arange(60) % 4
    found = plane(network, "act1", "relu", (torch.randn(60, 6), labels))
    assert _violation(found, labels) <= 1e-9
    assert _violation(found, torch.zeros(60, dtype=torch.int64)) > 0  # against a bound of 0 bits
