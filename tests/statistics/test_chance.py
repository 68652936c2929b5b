"""Information by chance against the mean over all permutations, scikit-learn, and shuffled labels."""

from __future__ import annotations

from itertools import permutations
from math import log

import numpy as np
import oracles
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.cluster import expected_mutual_information

from captum_ablate.statistics.chance import expected_information, expected_specific_information
from captum_ablate.statistics.histogram import ClassHistogram


def histogram_of(codes, labels):
    edges = torch.arange(int(codes.max()), dtype=torch.float64) + 0.5
    edges = edges if len(edges) else torch.tensor([0.5], dtype=torch.float64)
    return ClassHistogram.of(torch.from_numpy(codes).double(), torch.as_tensor(labels), edges)


def test_it_is_the_mean_over_all_permutations():
    codes = np.array([[0, 0], [0, 1], [1, 1], [1, 1], [2, 0], [2, 1]])
    labels = [0, 0, 0, 1, 1, 2]
    shuffled = [oracles.specific_information(codes, list(order)) for order in permutations(labels)]
    expected = expected_specific_information(histogram_of(codes, labels))
    np.testing.assert_allclose(expected.numpy(), np.mean(shuffled, axis=0), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 300), st.integers(1, 40), st.integers(1, 20))
def test_it_equals_scikit_learn(seed, n, classes, bins):
    generator = np.random.default_rng(seed)
    codes = (generator.random((n, 3)) ** 2 * bins).astype(int)
    labels = (generator.random(n) ** 2 * classes).astype(int)
    histogram = histogram_of(codes, labels)
    expected = oracles.information_by_chance(codes, labels.tolist())
    by_class = expected_specific_information(histogram)
    np.testing.assert_allclose((histogram.p_class @ by_class).numpy(), expected, atol=1e-10)
    per_class = histogram.counts[:, 0].sum(-1)
    np.testing.assert_allclose(expected_information(histogram.counts.sum(0), per_class), expected, atol=1e-10)


def test_it_equals_scikit_learn_where_tails_are_cut():
    generator = np.random.default_rng(0)
    table = np.array([generator.multinomial(100_000, [0.2, 0.3, 0.45, 0.05]), [1, 0, 2, 3]])
    ours = expected_information(torch.from_numpy(table.sum(axis=0))[None], torch.from_numpy(table.sum(axis=1)))
    expected = expected_mutual_information(table, int(table.sum())) / log(2)
    np.testing.assert_allclose(ours.numpy(), [expected], rtol=1e-6)
    even = np.full((3, 5), 4_000)
    ours = expected_information(torch.from_numpy(even.sum(axis=0))[None], torch.from_numpy(even.sum(axis=1)))
    np.testing.assert_allclose(ours.numpy(), [expected_mutual_information(even, 60_000) / log(2)], rtol=1e-6)
