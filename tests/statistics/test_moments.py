"""Sums of parts add up to those of the whole, whatever the split, the order, the labels or the size of blocks."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import add_up, labelled_values, parts_of

from captum_ablate.statistics import blocks as blocks_file
from captum_ablate.statistics.histogram import ClassHistogram
from captum_ablate.statistics.moments import ClassMoments, Labels


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


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3, 9) | st.integers(-(2**62), 2**62), max_size=30))
def test_labels_of_any_size_are_those_of_a_sort(labels):
    target = torch.tensor(labels, dtype=torch.int64)
    found = Labels.of(target)
    classes, index = torch.unique(target, return_inverse=True)
    assert torch.equal(found.classes, classes)
    assert torch.equal(found.index, index)
    assert Labels.of(found) is found


@pytest.mark.parametrize("block", [1, 50, 2**17])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_moments_do_not_depend_on_the_size_of_blocks(monkeypatch, block, nonnegative):
    values, target = torch.randn(40, 7), torch.arange(40) % 3
    values = values.abs() if nonnegative else values
    monkeypatch.setattr(blocks_file, "BLOCK", block)
    moments = ClassMoments.of(values, target, nonnegative=nonnegative)
    for c in range(3):
        own = values[target == c].double()
        torch.testing.assert_close(moments.means[c], own.mean(0), rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(moments.absolute_means[c], own.abs().mean(0), rtol=1e-14, atol=1e-14)
