"""The information plane agrees with the attributions; synergy of pairs with a plain oracle and its closed forms."""

from __future__ import annotations

import math
from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_ablate import LayerEntropy, LayerKLSelectivity, LayerMutualInformation
from captum_ablate.studies import activation_table, information_plane, pairwise_synergy

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


def test_the_picture_has_a_point_per_unit(digits_net, small_digits):
    table = activation_table(digits_net, "relu3", small_digits)
    ax = information_plane(table.values, table.target, bins=16).plot()
    points = ax.lines[-1]
    assert len(points.get_xdata()) == 24
    assert "bits" in ax.get_xlabel()
    assert "bits" in ax.get_ylabel()
    plt.close("all")


def plain(codes, labels):
    """Synergy by dictionaries, one pair at a time."""

    units = codes.shape[1]
    single = oracles.mutual_information(codes, labels)
    matrix = np.zeros((units, units))
    for u, v in product(range(units), repeat=2):
        pair = np.array([[1000 * a + b] for a, b in zip(codes[:, u], codes[:, v], strict=True)])
        matrix[u, v] = oracles.mutual_information(pair, labels)[0] - single[u] - single[v]
    return matrix


def test_xor_of_two_fair_bits_gives_one_bit():
    bits = torch.tensor(list(product([0.0, 1.0], repeat=2)))
    found = pairwise_synergy(bits, (bits[:, 0] != bits[:, 1]).long(), threshold=0.5)
    assert found.single.tolist() == [0, 0]
    assert found.synergy[0, 1].item() == pytest.approx(1, abs=1e-12)


def test_a_copy_takes_away_its_information():
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    unit = torch.tensor([0.0, 0, 1, 1, 1, 1, 0, 1])
    found = pairwise_synergy(torch.stack([unit, unit], dim=1), labels, threshold=0.5)
    (information,) = oracles.mutual_information(unit[:, None].numpy(), labels.tolist())
    assert information > 0.05
    np.testing.assert_allclose(found.synergy, np.full((2, 2), -information), atol=1e-12)


def test_two_halves_of_the_label_add_up():
    bits = torch.tensor(list(product([0.0, 1.0], repeat=2)))
    found = pairwise_synergy(bits, (2 * bits[:, 0] + bits[:, 1]).long(), threshold=0.5)
    np.testing.assert_allclose(found.single, [1, 1])
    assert found.joint[0, 1].item() == pytest.approx(2)
    assert found.synergy[0, 1].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.filterwarnings("ignore:with .* values per unit")
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 3, 5]), st.integers(2, 4))
def test_synergy_equals_the_plain_oracle(seed, bins, classes):
    generator = np.random.default_rng(seed)
    values, labels = generator.normal(size=(40, 3)), generator.integers(0, classes, 40)
    labels[:2] = [0, 1]
    found = pairwise_synergy(torch.from_numpy(values), labels, bins=bins, bias_correction=False)
    codes = oracles.quantised(values, oracles.width_edges(values, bins))
    np.testing.assert_allclose(found.synergy, plain(codes, labels.tolist()), atol=1e-10)
    assert bool((found.joint >= found.single[:, None] - 1e-10).all())  # a second unit never takes information away


@pytest.mark.parametrize(("bins", "classes"), [(2, 3), (4, 3), (16, 60)])
@pytest.mark.filterwarnings("ignore:.* cells .*values that occur", "ignore:with .* values per unit")
def test_bias_correction_subtracts_what_permuted_labels_share(bins, classes):
    generator = np.random.default_rng(0)
    values, labels = generator.normal(size=(120, 3)), generator.integers(0, classes, 120)
    plug_in, corrected = (
        pairwise_synergy(torch.from_numpy(values), labels, bins=bins, bias_correction=correct)
        for correct in (False, True)
    )
    codes = oracles.quantised(values, oracles.width_edges(values, bins))
    pairs = np.stack([codes[:, u] * bins + codes[:, v] for u in range(3) for v in range(3)], axis=1)
    by_chance = oracles.information_by_chance(pairs, labels.tolist()).reshape(3, 3)
    np.testing.assert_allclose(plug_in.joint - corrected.joint, by_chance, atol=1e-10)
    np.testing.assert_allclose(corrected.single, np.diag(corrected.joint), atol=0)


def test_pairs_with_more_cells_than_samples_are_warned_of_and_near_0_on_average():
    values, labels = torch.randn(100, 40, generator=torch.Generator().manual_seed(0)), torch.arange(100)
    with pytest.warns(UserWarning, match=r"cells \(values that occur x 100 classes\) for 100 samples.*fewer bins"):
        found = pairwise_synergy(values, labels, bins=16, bias_correction=True)
    assert float(found.single.abs().max()) < 1e-9  # every label occurs once, so each order of them shares the same
    assert float(found.synergy.abs().max()) < 1e-9


def test_units_that_know_nothing_have_no_synergy_once_corrected():
    generator = np.random.default_rng(1)
    values, labels = generator.normal(size=(4_000, 6)), generator.integers(0, 10, 4_000)
    pairs = pairwise_synergy(torch.from_numpy(values), labels, bins=4, bias_correction=True).to_frame()
    assert len(pairs) == 15
    assert abs(pairs["synergy"].mean()) < 0.005


def test_many_bins_on_few_samples_are_warned_of():
    values, labels = torch.randn(100, 3), torch.arange(100) % 10
    with pytest.warns(UserWarning, match=r"16 values per unit and 100 samples .* overestimated"):
        pairwise_synergy(values, labels, bins=16)


def test_the_matrix_shows_every_pair():
    values, labels = torch.randn(300, 5), torch.arange(300) % 2
    found = pairwise_synergy(values, labels, threshold="median")
    ax = found.plot()
    shown = ax.images[0].get_array()
    order = found.single.argsort(descending=True)
    assert shown.shape == (5, 5)
    assert shown[0, 1] == pytest.approx(found.synergy[order[0], order[1]].item())
    assert np.ma.is_masked(shown[2, 2]) or np.isnan(shown[2, 2])
    plt.close("all")


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"one row for each of the 3 labels; got \(4, 2\)"):
        pairwise_synergy(torch.zeros(4, 2), [0, 1, 1])
    with pytest.raises(ValueError, match="one class only"):
        pairwise_synergy(torch.zeros(3, 2), [1, 1, 1])
    with pytest.raises(ValueError, match="must be finite"):
        pairwise_synergy(torch.full((2, 2), torch.nan), [0, 1])
    with pytest.raises(ValueError, match="one value for each of the 2 units; got 3"):
        pairwise_synergy(torch.zeros(2, 2), [0, 1], threshold=torch.zeros(3))
    with pytest.raises(ValueError, match="pass one of them"):
        pairwise_synergy(torch.zeros(2, 2), [0, 1], threshold=0.0, bins=3)
