"""Statistics are sums over samples: merging parts equals one pass, whatever the split, order or labels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_ablate.statistics import gathering
from captum_ablate.statistics.class_statistics import ClassHistogram, ClassMoments, Pooled, ValueRange
from captum_ablate.statistics.gathering import HistogramRequest, MomentsRequest, TableRequest, collect
from captum_ablate.statistics.quantiser import Quantiser


@st.composite
def labelled_values(draw):
    n, units = draw(st.integers(2, 40)), draw(st.integers(1, 6))
    values = torch.randn(n, units, generator=torch.Generator().manual_seed(draw(st.integers(0, 2**31))))
    labels = draw(st.lists(st.sampled_from([3, 17, 250, -1]), min_size=n, max_size=n))
    cuts = sorted(draw(st.lists(st.integers(1, n - 1), max_size=3, unique=True)))
    return values.double(), torch.tensor(labels), cuts


def parts_of(values, target, cuts):
    bounds = [0, *cuts, len(target)]
    return [(values[a:b], target[a:b]) for a, b in pairwise(bounds)]


def add_up(statistics):
    total, *rest = statistics
    for statistic in rest:
        total = total + statistic
    return total


@settings(max_examples=60, deadline=None)
@given(labelled_values())
def test_moments_of_parts_add_up_to_those_of_the_whole(data):
    values, target, cuts = data
    whole = ClassMoments.of(values, target)
    merged = add_up(ClassMoments.of(*part) for part in parts_of(values, target, cuts))
    assert torch.equal(merged.classes, whole.classes)
    assert torch.equal(merged.counts, whole.counts)
    torch.testing.assert_close(merged.sums, whole.sums, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(merged.absolute_sums, whole.absolute_sums, rtol=1e-12, atol=1e-12)
    labels = target.tolist()
    np.testing.assert_allclose(merged.means, oracles.class_means(values.numpy(), labels), atol=1e-12)
    absolute = np.abs(values.numpy())
    np.testing.assert_allclose(merged.absolute_means, oracles.class_means(absolute, labels), atol=1e-12)
    np.testing.assert_allclose(merged.mean, oracles.mean_activity(values.numpy()), atol=1e-12)
    np.testing.assert_allclose(merged.absolute_mean, oracles.mean_activity(absolute), atol=1e-12)


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


@settings(max_examples=30, deadline=None)
@given(labelled_values())
def test_the_order_of_parts_and_of_samples_does_not_matter(data):
    values, target, cuts = data
    edges = values.median(0).values[:, None]
    order = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))
    one = add_up(ClassHistogram.of(*part, edges) for part in parts_of(values, target, cuts))
    other = add_up([ClassHistogram.of(*p, edges) for p in parts_of(values[order], target[order], cuts)][::-1])
    assert torch.equal(one.counts, other.counts)
    moments = add_up([ClassMoments.of(*p) for p in parts_of(values, target, cuts)][::-1])
    torch.testing.assert_close(
        moments.means, ClassMoments.of(values[order], target[order]).means, rtol=1e-12, atol=1e-12
    )


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


def test_ranges_of_parts_add_up_to_that_of_the_whole():
    values = torch.randn(30, 4)
    merged = add_up(ValueRange.of(part, positions) for part, positions in zip(values.split(11), (1, 1, 4), strict=True))
    assert (merged.low, merged.high) == (float(values.min()), float(values.max()))
    assert merged.has_positions


def stream(values, target, positions=1, size=7):
    """A stream of batches, which counts its passes."""
    passes = []

    def start():
        passes.append(1)
        parts = zip(values.split(size), target.split(size), strict=True)
        return ([Pooled(v, t, positions), Pooled(-2 * v, t, positions)] for v, t in parts)

    return start, passes


REQUESTS = [
    MomentsRequest(),
    HistogramRequest(Quantiser.of(None, None, "width")),
    HistogramRequest(Quantiser.of(None, 5, "width")),
    HistogramRequest(Quantiser.of(0.3, None, "width")),
]


def equal(one, other):
    return all(torch.equal(getattr(one, f), getattr(other, f)) for f in type(one).__dataclass_fields__)


@pytest.mark.parametrize("positions", [1, 9])
def test_two_passes_equal_one_pass_for_all_that_streams(monkeypatch, positions):
    values, target = torch.randn(50, 3).double(), torch.arange(50) % 4
    start, passes = stream(values, target, positions)
    once = collect(start, REQUESTS)
    assert len(passes) == 1
    monkeypatch.setattr(gathering, "TABLE_BYTES", 10)
    twice = collect(start, REQUESTS)
    assert len(passes) == 3
    for one, other in zip(once, twice, strict=True):
        assert all(equal(one[request], other[request]) for request in REQUESTS)


def test_every_method_of_a_comparison_shares_one_pass():
    start, passes = stream(torch.randn(20, 3).double(), torch.arange(20) % 2)
    found = collect(start, [*REQUESTS, TableRequest(), *REQUESTS])
    assert len(passes) == 1
    assert [set(f) for f in found] == [{*REQUESTS, TableRequest()}] * 2


def test_a_second_pass_is_not_made_for_what_needs_none(monkeypatch):
    monkeypatch.setattr(gathering, "TABLE_BYTES", 10)
    start, passes = stream(torch.randn(20, 3).double(), torch.arange(20) % 2)
    collect(start, [MomentsRequest(), HistogramRequest(Quantiser.of(0.0, None, "width"))])
    assert len(passes) == 1


@pytest.mark.parametrize("request_", [TableRequest(), HistogramRequest(Quantiser.of("median", None, "width"))])
def test_a_table_beyond_its_budget_is_refused(monkeypatch, request_):
    monkeypatch.setattr(gathering, "TABLE_BYTES", 10)
    start, _ = stream(torch.randn(20, 3).double(), torch.arange(20) % 2)
    with pytest.raises(ValueError, match="exceeds its budget"):
        collect(start, [request_])


def test_the_table_keeps_the_order_of_the_data():
    values, target = torch.randn(20, 3).double(), torch.arange(20) % 2
    start, _ = stream(values, target)
    first, second = (found[TableRequest()] for found in collect(start, [TableRequest()]))
    assert torch.equal(first.values, values)
    assert torch.equal(second.values, -2 * values)
    assert torch.equal(first.target, target)
    assert first.classes.tolist() == [0, 1]


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
