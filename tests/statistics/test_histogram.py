"""Histograms of parts add up exactly to that of the whole, and count as the oracle."""

from __future__ import annotations

import oracles
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import add_up, labelled_values, parts_of

from captum_ablate.statistics.histogram import ClassHistogram


@settings(max_examples=60, deadline=None)
@given(labelled_values(), st.sampled_from([1, 2, 7]))
def test_histograms_of_parts_add_up_exactly_and_count_as_the_oracle(data, inner):
    values, target, cuts = data
    edges = torch.linspace(-1, 1, inner, dtype=torch.float64)
    whole = ClassHistogram.of(values, target, edges)
    merged = add_up(ClassHistogram.of(*part, edges) for part in parts_of(values, target, cuts))
    assert torch.equal(merged.classes, whole.classes)
    assert torch.equal(merged.counts, whole.counts)
    assert merged.counts.dtype == torch.int64
    bins = oracles.quantised(values.numpy(), edges.tolist())
    for row, c in enumerate(merged.classes.tolist()):
        for unit in range(values.shape[1]):
            column = bins[target.numpy() == c, unit]
            assert merged.counts[row, unit].tolist() == [int((column == t).sum()) for t in range(inner + 1)]


def test_one_threshold_per_unit_is_a_bin_of_its_own_for_each():
    values = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    edges = torch.tensor([[0.5], [1.0]], dtype=torch.float64)
    histogram = ClassHistogram.of(values, torch.tensor([0, 0, 1]), edges)
    assert histogram.counts.tolist() == [[[1, 1], [2, 0]], [[0, 1], [0, 1]]]


def test_probabilities_are_float64_and_sum_to_1():
    histogram = ClassHistogram.of(torch.randn(30, 4).double(), torch.arange(30) % 7, torch.zeros(1).double())
    for p in (histogram.p_class, histogram.p_bin, histogram.p_bin_given_class):
        assert p.dtype == torch.float64
        torch.testing.assert_close(p.sum(-1), torch.ones_like(p.sum(-1)), rtol=1e-14, atol=0)
