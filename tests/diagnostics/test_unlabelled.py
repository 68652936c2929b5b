"""Data without labels: every form gives the same spectrum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_ablate import Batch, activation_spectrum


def forms(x, y):
    """The same samples in every form that is taken."""
    pairs = TensorDataset(x, y)
    return {
        "inputs": x,
        "pair": (x, y),
        "regression": (x, torch.randn(len(x), 3)),
        "Batch": Batch((x,), y),
        "loader": DataLoader(pairs, batch_size=7),
        "data set": pairs,
        "loader without labels": DataLoader(TensorDataset(x), batch_size=11),
        "bare batches": list(x.split(13)),
        "generator": (part for part in x.split(13)),
    }


@pytest.mark.parametrize("form", forms(torch.zeros(2, 2), torch.zeros(2)))
def test_every_form_of_the_data_gives_the_same(form):
    x, y = torch.randn(60, 8), torch.arange(60) % 3
    net = nn.Sequential(nn.Linear(8, 70), nn.Tanh())
    whole = activation_spectrum(net, "1", x, fit_range=(1, 8), replicates=10)
    found = activation_spectrum(net, "1", forms(x, y)[form], fit_range=(1, 8), replicates=10)
    assert found.n == 60
    np.testing.assert_allclose(found.eigenvalues, whole.eigenvalues, rtol=1e-5, atol=1e-8)  # float32 activations
    np.testing.assert_allclose(found.replicates, whole.replicates, rtol=1e-5)


def test_dict_batches_come_through_unpack_batch():
    x = torch.randn(30, 8)
    net = nn.Sequential(nn.Linear(8, 5))
    batches = [{"x": part} for part in x.split(10)]
    found = activation_spectrum(net, "0", batches, unpack_batch=lambda batch: batch["x"])
    np.testing.assert_allclose(found.eigenvalues, activation_spectrum(net, "0", x).eigenvalues)
    with pytest.raises(TypeError, match="got dict"):
        activation_spectrum(net, "0", batches)
