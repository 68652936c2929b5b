"""The information plane agrees with the attributions, and keeps the order of its quantities."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_ablate import LayerEntropy, LayerKLSelectivity, LayerMutualInformation
from captum_ablate.studies import activation_table, information_plane

QUANTISERS = [{}, {"threshold": "median"}, {"threshold": 0.3}, {"bins": 4}, {"bins": 8, "edges": "mass"}]


@pytest.mark.parametrize("quantiser", QUANTISERS, ids=str)
def test_the_plane_shows_what_the_attributions_score(digits_net, small_digits, quantiser):
    table = activation_table(digits_net, "relu3", small_digits)
    plane = information_plane(table.values, table.target, **quantiser)
    for attribution, values in (
        (LayerEntropy, plane.entropy),
        (LayerMutualInformation, plane.information),
        (LayerKLSelectivity, plane.kl_selectivity),
    ):
        scores = attribution(digits_net, "relu3", **quantiser).attribute(small_digits[0], target=small_digits[1])
        np.testing.assert_allclose(values, scores, atol=1e-12)


def test_the_best_class_is_the_one_that_kl_selectivity_chose(digits_net, small_digits):
    table = activation_table(digits_net, "relu3", small_digits)
    plane = information_plane(table.values, table.target)
    per_class = LayerKLSelectivity(digits_net, "relu3").attribute(*small_digits, per_class=True)
    assert plane.best_class.tolist() == table.classes[per_class.argmax(0)].tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(QUANTISERS))
def test_quantities_keep_their_order(seed, quantiser):
    generator = np.random.default_rng(seed)
    values, labels = generator.normal(size=(50, 4)), generator.integers(0, 3, 50)
    labels[:2] = [0, 1]
    plane = information_plane(torch.from_numpy(values), labels, **quantiser)
    rarest = min((labels == c).mean() for c in np.unique(labels))
    assert bool((plane.information >= -1e-12).all())
    assert bool((plane.information <= plane.entropy + 1e-9).all())
    assert bool((plane.information <= plane.kl_selectivity + 1e-9).all())
    assert bool((plane.kl_selectivity <= math.log2(1 / rarest) + 1e-9).all())
    assert bool((plane.information <= plane.class_entropy + 1e-9).all())


def test_a_unit_that_is_the_class_has_one_bit_of_all():
    labels = torch.tensor([0, 1] * 10)
    plane = information_plane(labels[:, None].double(), labels, threshold=0.5)
    assert [float(x) for x in (plane.entropy, plane.information, plane.kl_selectivity)] == [1, 1, 1]
    assert plane.class_entropy == 1
    row = plane.to_frame().iloc[0]
    assert (row["unit"], row["entropy"], row["best_class"]) == (0, 1, 0)


def test_the_table_is_the_pooled_activation(digits_net, small_digits):
    table = activation_table(
        digits_net,
        "relu1",
        [(small_digits[0][:50], small_digits[1][:50]), (small_digits[0][50:], small_digits[1][50:])],
    )
    with torch.no_grad():
        plain = digits_net[1](digits_net[0](small_digits[0])).mean((2, 3))
    np.testing.assert_allclose(table.values, plain, atol=1e-6)
    assert table.target.tolist() == small_digits[1].tolist()
    assert not any(m._forward_hooks for m in digits_net.modules())


def test_the_picture_has_a_point_per_unit(digits_net, small_digits):
    table = activation_table(digits_net, "relu3", small_digits)
    ax = information_plane(table.values, table.target, bins=16).plot()
    points = ax.lines[-1]
    assert len(points.get_xdata()) == 24
    assert "bits" in ax.get_xlabel()
    assert "bits" in ax.get_ylabel()
    plt.close("all")
