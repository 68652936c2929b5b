"""The table holds what a plain forward pass computes, averaged over positions."""

from __future__ import annotations

import numpy as np
import torch

from captum_ablate.studies import activation_table


def test_the_table_is_the_pooled_activation(digits_net, small_digits):
    table = activation_table(
        digits_net,
        "relu1",
        [(small_digits[0][:50], small_digits[1][:50]), (small_digits[0][50:], small_digits[1][50:])],
    )
    with torch.no_grad():
        plain = digits_net[1](digits_net[0](small_digits[0])).mean((2, 3))
    np.testing.assert_allclose(table.values, plain, atol=1e-6)
    assert table.target.tolist() == small_digits[1].tolist()
    assert not any(m._forward_hooks for m in digits_net.modules())
