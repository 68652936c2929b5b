"""Outputs of several masks that reach the metric in one call."""

from __future__ import annotations

import pytest
import torch

from captum_ablate.ablation import closed_form


@pytest.mark.parametrize("most", [1, 12, 40, 10_000])
@pytest.mark.parametrize("shape", [(4, 3), (4,)])
def test_masks_are_joined_in_their_order_up_to_a_size(monkeypatch, most, shape):
    monkeypatch.setattr(closed_form, "JOINED", most)
    outputs = [(k, torch.randn(shape)) for k in (3, 0, 2, 5, 1)]
    found = list(closed_form.joined(iter(outputs)))
    assert [number for numbers, _ in found for number in numbers] == [3, 0, 2, 5, 1]
    assert torch.equal(torch.cat([part for _, part in found]), torch.cat([one for _, one in outputs]))
    size = outputs[0][1].numel()
    assert all(len(numbers) <= max(1, -(-most // size)) for numbers, _ in found)
    assert list(closed_form.joined(iter([]))) == []
