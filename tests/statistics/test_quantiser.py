"""Edges are those of the oracle, and equal quantisers ask for the same histogram."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import add_up, labelled_values

from captum_ablate.statistics.quantiser import Quantiser, ValueRange
from captum_ablate.statistics.requests import HistogramRequest


def test_ranges_of_parts_add_up_to_that_of_the_whole():
    values = torch.randn(30, 4)
    merged = add_up(ValueRange.of(part, positions) for part, positions in zip(values.split(11), (1, 1, 4), strict=True))
    assert (merged.low, merged.high) == (float(values.min()), float(values.max()))
    assert merged.has_positions


@settings(max_examples=40, deadline=None)
@given(labelled_values(), st.sampled_from([2, 3, 16]))
def test_edges_equal_those_of_the_oracle(data, bins):
    values, _, _ = data
    span = ValueRange.of(values, 1)
    array = values.numpy()
    width = Quantiser.of(None, bins, "width").edges_for(span, None)
    np.testing.assert_allclose(width, oracles.width_edges(array, bins), rtol=1e-12, atol=1e-12)
    mass = Quantiser.of(None, bins, "mass").edges_for(span, values)
    np.testing.assert_allclose(mass, oracles.mass_edges(array, bins), rtol=1e-12, atol=1e-12)
    median = Quantiser.of("median", None, "width").edges_for(span, values)
    np.testing.assert_allclose(median[:, 0], oracles.median_threshold(array), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("low", "positions", "edges"), [(0.0, 1, 1), (0.5, 1, 1), (-0.1, 1, 15), (0.0, 4, 15), (-0.1, 4, 15)]
)
def test_the_default_quantiser_is_one_bit_for_outputs_at_least_0_without_positions(low, positions, edges):
    values = torch.tensor([[low], [2.0]], dtype=torch.float64)
    found = Quantiser.of(None, None, "width").edges_for(ValueRange.of(values, positions), None)
    assert len(found) == edges
    if edges == 1:
        assert found.tolist() == [0.0]


def test_equal_quantisers_are_equal_requests():
    one, other = (Quantiser.of(torch.tensor([0.5, 1.0]), None, "width") for _ in range(2))
    assert HistogramRequest(one) == HistogramRequest(other)
    assert len({HistogramRequest(one), HistogramRequest(other)}) == 1
    assert Quantiser.of(1, None, "width") == Quantiser.of(1.0, None, "width")
