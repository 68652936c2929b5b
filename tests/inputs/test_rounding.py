"""The spread that rounding alone gives."""

from __future__ import annotations

import pytest
import torch

from captum_ablate.inputs.rounding import rounding


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("width", [1, 64, 2048])
def test_a_constant_that_sums_compute_varies_less_than_rounding(dtype, width):
    """Shares of random numbers add up to 1, or to what rounding makes of it."""
    generator = torch.Generator().manual_seed(0)
    parts = torch.rand(500, width, generator=generator, dtype=torch.float64).to(dtype) + 1
    sums = (parts / parts.sum(dim=1, keepdim=True)).sum(dim=1).double()
    assert float(sums.std()) <= rounding(dtype) * float(sums.max())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_signal_of_a_few_percent_is_no_rounding(dtype):
    values = (1 + 0.05 * torch.randn(500, dtype=torch.float64)).to(dtype).double()
    assert float(values.std()) > rounding(dtype) * float(values.max())
