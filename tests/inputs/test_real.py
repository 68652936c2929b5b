"""Real numbers from any container, complex ones refused, and the spread that rounding alone gives."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from captum_ablate.inputs.real import as_real, rounding


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 2.0, 3.0],
        np.array([3.0, 2.0, 1.0])[::-1],
        np.array([1, 2, 3]),
        torch.tensor([1.0, 2.0, 3.0], requires_grad=True),
        torch.tensor([1, 2, 3]),
        torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16),
        pd.Series([1.0, 2.0, 3.0], index=[7, 3, 5]),
    ],
    ids=["list", "reversed", "whole", "tensor", "whole tensor", "half", "series"],
)
def test_any_container_becomes_float64(values):
    found = as_real(values, "scores")
    assert found.dtype == torch.float64
    assert found.tolist() == [1, 2, 3]


@pytest.mark.parametrize("values", [torch.zeros(2, dtype=torch.complex64), np.zeros(2, dtype=complex), [1j, 2j]])
def test_complex_numbers_are_refused(values):
    with pytest.raises(ValueError, match=r"scores must be real; got torch\.complex.*\.abs\(\)"):
        as_real(values, "scores")


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
