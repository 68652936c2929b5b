"""The shared pass is exact: whatever the size of chunks and blocks, the type of the values, and where they lie."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from captum_ablate import LayerMeanActivity, LayerMutualInformation, attribute_together
from captum_ablate.inputs import units as units_file
from captum_ablate.inputs.batches import as_batches
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics import class_statistics, gathering
from captum_ablate.statistics.activations import layer_pass
from captum_ablate.statistics.class_statistics import (
    ActivationTable,
    ClassHistogram,
    ClassMoments,
    Labels,
    check_finite,
)
from captum_ablate.statistics.gathering import Rows


def counts_by_comparison(values, target, edges):
    """How many values of each class and unit lie above k edges: by comparing each with each, in float64."""
    bins = (values.double()[..., None] > edges).sum(-1)  # [n, units]
    classes = target.unique()
    return torch.stack(
        [torch.stack([(bins[target == c] == k).sum(0) for k in range(edges.shape[-1] + 1)], -1) for c in classes]
    )


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
@given(st.lists(st.integers(-3, 9) | st.integers(-(2**62), 2**62), max_size=30))
def test_labels_of_any_size_are_those_of_a_sort(labels):
    target = torch.tensor(labels, dtype=torch.int64)
    found = Labels.of(target)
    classes, index = torch.unique(target, return_inverse=True)
    assert torch.equal(found.classes, classes)
    assert torch.equal(found.index, index)
    assert Labels.of(found) is found


@settings(max_examples=40, deadline=None)
@given(st.floats(-10, 10), st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
def test_one_bit_is_counted_in_the_type_of_the_values_as_in_float64(threshold, dtype):
    edge = torch.tensor([threshold], dtype=torch.float64)
    near = edge.to(dtype)
    values = torch.cat([near, near.nextafter(near + 1), near.nextafter(near - 1), torch.randn(9).to(dtype)])[:, None]
    target = torch.arange(12) % 2
    assert torch.equal(ClassHistogram.of(values, target, edge).counts, counts_by_comparison(values, target, edge))


@pytest.mark.parametrize("block", [1, 50, 2**17])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_moments_do_not_depend_on_the_size_of_blocks(monkeypatch, block, nonnegative):
    values, target = torch.randn(40, 7), torch.arange(40) % 3
    values = values.abs() if nonnegative else values
    monkeypatch.setattr(class_statistics, "BLOCK", block)
    moments = ClassMoments.of(values, target, nonnegative=nonnegative)
    for c in range(3):
        own = values[target == c].double()
        torch.testing.assert_close(moments.means[c], own.mean(0), rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(moments.absolute_means[c], own.abs().mean(0), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("block", [1, 100, 2**17])
@pytest.mark.parametrize(
    ("shape", "unit_dim"), [((9, 4, 5, 3), 1), ((9, 5, 6), -1), ((9, 4), 1), ((9, 3, 4, 2, 2), 2), ((9, 4, 5, 3), None)]
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_pooling_in_blocks_is_the_float64_mean(monkeypatch, block, shape, unit_dim, channels_last):
    monkeypatch.setattr(units_file, "BLOCK", block)
    output = 1e3 * torch.randn(shape)
    if channels_last and len(shape) == 4:
        output = output.to(memory_format=torch.channels_last)
    axis = UnitAxis.of(unit_dim)
    kept = axis.shape(shape)
    dims = [d for d in range(1, len(shape)) if kept[d] == 1]
    wide = output.double()
    expected = (wide.mean(dims) if dims else wide).flatten(1)
    torch.testing.assert_close(axis.pool(output), expected, rtol=1e-13, atol=1e-10)
    torch.testing.assert_close(axis.total(output), expected * axis.positions(shape), rtol=1e-13, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 40, 2**21])
def test_scores_do_not_depend_on_the_size_of_chunks(monkeypatch, digits_net, small_digits, chunk):
    found = {
        f"{cls.__name__} of {layer}": cls(digits_net, layer)
        for cls in (LayerMeanActivity, LayerMutualInformation)
        for layer in ("relu2", "relu3", "fc2")
    }
    whole = attribute_together(found, *small_digits, batch_size=7)
    monkeypatch.setattr(gathering, "CHUNK_VALUES", chunk)
    for name, scores in attribute_together(found, *small_digits, batch_size=7).items():
        torch.testing.assert_close(scores, whole[name], rtol=1e-12, atol=1e-12)


def test_rows_are_copies_that_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(gathering, "CHUNK_VALUES", 12)
    rows = Rows()
    batches = [torch.randn(n, units) for n, units in ((2, 3), (1, 3), (4, 3), (1, 3), (2, 5), (1, 5))]
    copies = [rows.copy(batch) for batch in batches]
    kept = [batch.clone() for batch in batches]
    for batch in batches:
        batch.zero_()
    assert all(torch.equal(a, b) for a, b in zip(copies, kept, strict=True))
    assert torch.equal(gathering._joined(copies[:3]), torch.cat(kept[:3]))
    assert torch.equal(gathering._joined(copies[1:4]), torch.cat(kept[1:4]))
    assert torch.equal(gathering._joined([copies[2], copies[1]]), torch.cat([kept[2], kept[1]]))


def test_a_table_in_parts_is_joined_and_widened_when_asked_for():
    parts = tuple(torch.randn(3, 2) for _ in range(3))
    table = ActivationTable(parts, torch.arange(9))
    assert table.values.dtype == torch.float64
    assert torch.equal(table.values, torch.cat(parts).double())
    assert table.values is table.values


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_batch_that_is_not_finite_is_named_from_within_a_chunk(dense, dense_data, bad):
    x, y = dense_data[0].clone(), dense_data[1]
    x[33, 0] = bad
    with pytest.raises(ValueError, match=r"layer '0' has NaN or infinite activations in batch 3, unit 0 and 6 more"):
        attribute_together({"m": LayerMeanActivity(dense, "0")}, x, y, batch_size=10)
    check_finite(torch.randn(3, 4), "0", 0)


class Writes(nn.Module):
    """Writes into its inputs where their largest value is above ``above``."""

    def __init__(self, above):
        super().__init__()
        self.above, self.linear = above, nn.Linear(5, 3)

    def forward(self, x):
        if x.max() > self.above:
            x.mul_(0.5)
        return self.linear(x)


def test_a_model_that_writes_into_its_inputs_gets_copies(dense_data):
    x, y = dense_data
    before, net = x.clone(), Writes(-100.0).eval()
    scores = LayerMeanActivity(net, "linear").attribute(x, target=y, batch_size=13)
    assert torch.equal(x, before)
    torch.testing.assert_close(scores, net.linear(before / 2).double().mean(0), rtol=1e-5, atol=1e-5)


def test_a_model_that_begins_to_write_into_its_inputs_is_refused(dense_data):
    x = dense_data[0].clamp(-1, 1)
    x[30:] += 5
    with pytest.raises(ValueError, match="wrote into its inputs, which it did not do in the first batch"):
        LayerMeanActivity(Writes(2.0).eval(), "linear").attribute(x, target=dense_data[1], batch_size=20)


def test_each_layer_may_be_taken_in_its_own_way(dense, dense_data):
    layers = [dense[0], dense[2]]
    takes = [lambda part: part.shape, lambda part: part.sum()]
    ((_, (first, second)),) = layer_pass(dense, layers, as_batches(dense_data), takes)
    assert first == [(60, 7)]
    torch.testing.assert_close(second[0], dense[:3](dense_data[0]).sum())
