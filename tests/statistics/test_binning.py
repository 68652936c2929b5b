"""The fast ways to count bins are exact: at edges and beside them, of any type, at every magnitude."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import counts_by_comparison

from captum_ablate.statistics.histogram import ClassHistogram


@settings(max_examples=80, deadline=None)
@given(
    st.integers(2, 20),
    st.floats(-1e6, 1e6),
    st.floats(1e-6, 1e6),
    st.sampled_from([torch.float16, torch.float32, torch.float64]),
    st.integers(0, 2**31),
)
def test_values_at_and_beside_edges_of_equal_distance_are_counted_as_by_comparison(inner, low, width, dtype, seed):
    edges = low + width * torch.arange(inner, dtype=torch.float64)
    if dtype == torch.float16:
        edges = (edges / 1e3).clamp(-6e4, 6e4)
    exact = torch.cat([edges, edges.nextafter(edges + 1), edges.nextafter(edges - 1)]).to(dtype)
    spread = edges[0] + (edges[-1] - edges[0]) * torch.rand(30, generator=torch.Generator().manual_seed(seed)).double()
    values = torch.cat([exact, spread.to(dtype), exact.new_tensor([-6e4, 6e4])])
    values = torch.stack([values, values.flip(0)], 1)
    target = torch.arange(len(values)) % 3
    assert torch.equal(ClassHistogram.of(values, target, edges).counts, counts_by_comparison(values, target, edges))


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0, 1e30, 2e37])
@pytest.mark.parametrize("shift", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bins_are_exact_at_every_magnitude(scale, shift, dtype):
    edges = (torch.linspace(-7, 7, 15, dtype=torch.float64) + shift) * scale
    edges = edges.clamp(-3e38, 3e38)
    values = torch.cat([edges, ((torch.randn(3000).double() * 4 + shift) * scale).clamp(-3e38, 3e38)]).to(dtype)
    values, target = values.reshape(-1, 5), torch.arange(len(values) // 5) % 3
    assert torch.equal(ClassHistogram.of(values, target, edges).counts, counts_by_comparison(values, target, edges))


@settings(max_examples=40, deadline=None)
@given(st.floats(-10, 10), st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
def test_one_bit_is_counted_in_the_type_of_the_values_as_in_float64(threshold, dtype):
    edge = torch.tensor([threshold], dtype=torch.float64)
    near = edge.to(dtype)
    values = torch.cat([near, near.nextafter(near + 1), near.nextafter(near - 1), torch.randn(9).to(dtype)])[:, None]
    target = torch.arange(12) % 2
    assert torch.equal(ClassHistogram.of(values, target, edge).counts, counts_by_comparison(values, target, edge))
