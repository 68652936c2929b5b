"""One hooked pass: each layer is taken in its own way, and what is not finite is named."""

from __future__ import annotations

import pytest
import torch

from captum_ablate import LayerMeanActivity, attribute_together
from captum_ablate.inputs.batches import as_batches
from captum_ablate.statistics.activation_checks import check_finite
from captum_ablate.statistics.activations import activations


def test_each_layer_may_be_taken_in_its_own_way(dense, dense_data):
    layers = [dense[0], dense[2]]
    takes = [lambda part: part.shape, lambda part: part.sum()]
    ((_, (first, second)),) = activations(dense, layers, as_batches(dense_data), takes)
    assert first == [(60, 7)]
    torch.testing.assert_close(second[0], dense[:3](dense_data[0]).sum())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_batch_that_is_not_finite_is_named_from_within_a_chunk(dense, dense_data, bad):
    x, y = dense_data[0].clone(), dense_data[1]
    x[33, 0] = bad
    with pytest.raises(ValueError, match=r"layer '0' has NaN or infinite activations in batch 3, unit 0 and 6 more"):
        attribute_together({"m": LayerMeanActivity(dense, "0")}, x, y, batch_size=10)
    check_finite(torch.randn(3, 4), "0", 0)
