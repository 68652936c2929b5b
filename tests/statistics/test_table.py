"""A table keeps the activations in the order of the data."""

from __future__ import annotations

import torch

from captum_ablate.statistics.table import ActivationTable


def test_a_table_in_parts_is_joined_and_widened_when_asked_for():
    parts = tuple(torch.randn(3, 2) for _ in range(3))
    table = ActivationTable(parts, torch.arange(9))
    assert table.values.dtype == torch.float64
    assert torch.equal(table.values, torch.cat(parts).double())
    assert table.values is table.values
