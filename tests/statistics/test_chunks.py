"""Batches are joined to chunks without a copy where they lie one after the other."""

from __future__ import annotations

import torch

from captum_ablate.statistics import chunks
from captum_ablate.statistics.chunks import Rows, joined


def test_rows_are_copies_that_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_VALUES", 12)
    rows = Rows()
    batches = [torch.randn(n, units) for n, units in ((2, 3), (1, 3), (4, 3), (1, 3), (2, 5), (1, 5))]
    copies = [rows.copy(batch) for batch in batches]
    kept = [batch.clone() for batch in batches]
    for batch in batches:
        batch.zero_()
    assert all(torch.equal(a, b) for a, b in zip(copies, kept, strict=True))
    assert torch.equal(joined(copies[:3]), torch.cat(kept[:3]))
    assert torch.equal(joined(copies[1:4]), torch.cat(kept[1:4]))
    assert torch.equal(joined([copies[2], copies[1]]), torch.cat([kept[2], kept[1]]))
