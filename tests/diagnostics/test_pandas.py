"""Diagnostics and studies take pandas objects by place, whatever their index."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from captum_ablate import (
    participation_ratio,
    retrain_last_layer,
    worst_group_accuracy,
)
from captum_ablate.studies import feature_selection, pairwise_synergy

N = 40


@pytest.fixture
def table():
    torch.manual_seed(0)
    return torch.randn(N, 3, dtype=torch.float64), torch.arange(N) % 2


def frame(values):
    return pd.DataFrame(values.numpy(), index=range(300, 300 + len(values)))


def series(values):
    return pd.Series(values.numpy(), index=range(300, 300 + len(values)))


def test_worst_group_accuracy(table):
    logits, y = table[0][:, :2], table[1]
    groups = torch.arange(N) // 20
    expected = worst_group_accuracy(logits, y, groups)
    found = worst_group_accuracy(frame(logits), series(y), series(groups), train=(series(y), series(groups)))
    assert torch.equal(found.accuracy, expected.accuracy)
    flipped = worst_group_accuracy(logits.numpy()[::-1], y.numpy()[::-1], list(groups.flip(0)))
    assert torch.equal(flipped.accuracy, expected.accuracy)
    assert worst_group_accuracy(series(logits.argmax(1)), series(y), series(groups)).value == expected.value


def test_participation_ratio():
    values = torch.tensor([3.0, 1.0, 0.5], dtype=torch.float64)
    assert participation_ratio(series(values)) == participation_ratio(values)


@pytest.mark.filterwarnings("ignore")
def test_studies_of_tables(table):
    values, y = table
    own = pairwise_synergy(frame(values), series(y), threshold=0.0)
    assert torch.equal(own.synergy, pairwise_synergy(values, y, threshold=0.0).synergy)
    scores = torch.arange(3.0)
    found = feature_selection(series(scores), frame(values), series(y), k=[1, np.int64(2)], splits=2)
    assert torch.equal(found.mean, feature_selection(scores, values, y, k=[1, 2], splits=2).mean)


def test_retraining(table):
    values, y = table
    own, expected = retrain_last_layer(frame(values), series(y), C=1.0), retrain_last_layer(values, y, C=1.0)
    assert torch.equal(own.weight, expected.weight)
