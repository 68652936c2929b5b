"""Real numbers from any container, and complex ones refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from captum_ablate.inputs.values import as_real


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
