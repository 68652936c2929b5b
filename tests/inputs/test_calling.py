"""A model that writes into its inputs leaves the user's data as they were."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_ablate import LayerMeanActivity


class Writes(nn.Module):
    """Writes into its inputs where their largest value is above ``above``."""

    def __init__(self, above):
        super().__init__()
        self.above, self.linear = above, nn.Linear(5, 3)

    def forward(self, x):
        if x.max() > self.above:
            x.mul_(0.5)
        return self.linear(x)


def test_a_model_that_writes_into_its_inputs_gets_copies(dense_data):
    x, y = dense_data
    before, net = x.clone(), Writes(-100.0).eval()
    scores = LayerMeanActivity(net, "linear").attribute(x, target=y, batch_size=13)
    assert torch.equal(x, before)
    torch.testing.assert_close(scores, net.linear(before / 2).double().mean(0), rtol=1e-5, atol=1e-5)


def test_a_model_that_begins_to_write_into_its_inputs_is_refused(dense_data):
    x = dense_data[0].clamp(-1, 1)
    x[30:] += 5
    with pytest.raises(ValueError, match="wrote into its inputs, which it did not do in the first batch"):
        LayerMeanActivity(Writes(2.0).eval(), "linear").attribute(x, target=dense_data[1], batch_size=20)
