"""Batches are joined to chunks without a copy where they lie one after the other."""

from __future__ import annotations

import torch

from captum_ablate import LayerMeanActivity
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


def test_a_layer_may_run_in_inference_mode_in_some_batches():
    class Sometimes(torch.nn.Linear):
        def forward(self, x):
            with torch.inference_mode(bool(x[0, 0] == 0)):
                return super().forward(x)

    torch.manual_seed(0)
    model = torch.nn.Sequential(Sometimes(3, 4)).eval()
    x, y = torch.randn(6, 3), torch.arange(6) % 2
    x[0, 0] = 0.0
    batches = [(x[k : k + 2], y[k : k + 2]) for k in (0, 2, 4)]
    expected = LayerMeanActivity(torch.nn.Sequential(torch.nn.Linear(3, 4)), "0")
    expected.layer.load_state_dict(model[0].state_dict())
    torch.testing.assert_close(LayerMeanActivity(model, "0").attribute(batches), expected.attribute(x, target=y))
