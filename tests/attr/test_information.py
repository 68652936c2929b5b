"""Entropy, mutual information and KL selectivity in bits, under every quantiser, against counting by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import oracles
import pytest
import torch
from captum_networks import BasicModel_MultiLayer
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from captum_ablate import LayerEntropy, LayerKLSelectivity, LayerMutualInformation

OURS = (LayerEntropy, LayerMutualInformation, LayerKLSelectivity)


def show(units):
    """A net whose first layer shows its input."""
    return nn.Sequential(nn.Identity(), nn.Linear(units, 2)).eval()


def quietly(attribution, *args, **kwargs):
    """Scores without the warning about empty units, which small examples earn rightly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return attribution.attribute(*args, **kwargs)


def edges_of(options, values, positions):
    """The oracle's edges for the options of an attribution."""
    if options.get("threshold") == "median":
        return oracles.threshold_edges(oracles.median_threshold(values))
    if isinstance(options.get("threshold"), torch.Tensor):
        return oracles.threshold_edges(options["threshold"].double().tolist())
    if "threshold" in options:
        return [options["threshold"]]
    if "bins" in options:
        rule = oracles.mass_edges if options.get("edges") == "mass" else oracles.width_edges
        return rule(values, options["bins"])
    return oracles.default_edges(values, positions)


QUANTISERS = [
    {},
    {"threshold": 0.25},
    {"threshold": "median"},
    {"threshold": torch.linspace(-0.2, 0.6, 24)},
    {"bins": 2},
    {"bins": 5, "edges": "width"},
    {"bins": 7, "edges": "mass"},
]


@pytest.mark.parametrize("options", QUANTISERS, ids=str)
@pytest.mark.parametrize("layer", ["fc1", "relu3"])
def test_information_equals_oracle_on_a_dense_layer(digits_net, small_digits, layer, options):
    x, y = small_digits
    values = oracles.layer_values(digits_net, digits_net.get_submodule(layer), x)
    bins = oracles.quantised(values, edges_of(options, values, positions=1))
    labels = y.tolist()
    entropy, information, kl = (quietly(cls(digits_net, layer, **options), x, target=y) for cls in OURS)
    np.testing.assert_allclose(entropy.numpy(), oracles.entropy(bins), atol=1e-9)
    np.testing.assert_allclose(information.numpy(), oracles.mutual_information(bins, labels), atol=1e-9)
    np.testing.assert_allclose(kl.numpy(), oracles.kl_selectivity(bins, labels), atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"threshold": "median"}, {"bins": 6, "edges": "mass"}], ids=str)
def test_information_equals_oracle_on_a_convolution(digits_net, small_digits, options):
    x, y = small_digits
    values = oracles.layer_values(digits_net, digits_net.relu1, x)
    bins = oracles.quantised(values, edges_of(options, values, positions=64))
    information = quietly(LayerMutualInformation(digits_net, "relu1", **options), x, target=y)
    np.testing.assert_allclose(information.numpy(), oracles.mutual_information(bins, y.tolist()), atol=1e-9)


def test_information_equals_oracle_on_a_captum_model():
    model, x, y = BasicModel_MultiLayer(), torch.randn(40, 3) * 4, torch.arange(40) % 4
    values = oracles.layer_values(model, model.linear1, x)
    bins = oracles.quantised(values, oracles.default_edges(values, positions=1))
    scores = quietly(LayerMutualInformation(model, model.linear1), x, target=y)
    np.testing.assert_allclose(scores.numpy(), oracles.mutual_information(bins, y.tolist()), atol=1e-9)


def test_information_per_class_equals_oracle_and_averages_to_the_whole(digits_net, small_digits):
    x, y = small_digits
    values = oracles.layer_values(digits_net, digits_net.relu3, x)
    bins = oracles.quantised(values, [0.0])
    for cls in (LayerMutualInformation, LayerKLSelectivity):
        per_class = quietly(cls(digits_net, "relu3"), x, target=y, per_class=True)
        assert per_class.shape == (10, 24)
        np.testing.assert_allclose(per_class.numpy(), oracles.specific_information(bins, y.tolist()), atol=1e-9)
    p_class = torch.bincount(y, minlength=10) / len(y)
    information = quietly(LayerMutualInformation(digits_net, "relu3"), x, target=y)
    torch.testing.assert_close(p_class.double() @ per_class, information, rtol=0, atol=1e-6)


def test_entropy_has_no_score_per_class(dense, dense_data):
    x, y = dense_data
    with pytest.raises(ValueError, match="Layer Entropy has no score per class"):
        LayerEntropy(dense, "0").attribute(x, target=y, per_class=True)


def test_one_bit_at_0_is_the_default_only_for_outputs_at_least_0_without_positions():
    y = torch.arange(32) % 2
    graded = torch.arange(1.0, 33.0)[:, None]  # always > 0: one bit at 0 is empty, 16 bins hold 4 bits
    assert quietly(LayerEntropy(show(1), "0"), graded, target=y) == pytest.approx([0.0], abs=1e-12)
    assert quietly(LayerEntropy(show(1), "0"), graded - 16.5, target=y) == pytest.approx([4.0])
    image = graded[:, :, None, None].expand(32, 1, 2, 2).clone()
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4, 2)).eval()
    assert quietly(LayerEntropy(model, "0"), image, target=y) == pytest.approx([4.0])


def test_bins_of_equal_width_span_the_whole_layer_not_the_unit():
    narrow, wide = torch.linspace(0, 1, 40), torch.linspace(0, 1000, 40)
    x = torch.stack([narrow, wide], dim=1)
    scores = quietly(LayerEntropy(show(2), "0", bins=8), x, target=torch.arange(40) % 2)
    assert scores[0] == 0
    assert scores[1] == pytest.approx(3.0)


def test_a_value_on_an_edge_belongs_to_the_bin_below_it():
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])
    y = [0, 0, 0, 1, 1]
    assert quietly(LayerMutualInformation(show(1), "0", threshold=2.0), x, target=y) == pytest.approx(
        oracles.entropy(np.array([[0], [0], [0], [1], [1]]))
    )
    by_width = quietly(LayerMutualInformation(show(1), "0", bins=2), x, target=y)  # its edge is 2 as well
    assert by_width == pytest.approx(oracles.entropy(np.array([[0], [0], [0], [1], [1]])))


def test_bins_of_equal_mass_hold_equally_many_values_of_the_layer():
    x = torch.tensor([[math.exp(k / 4), -math.exp(k / 5)] for k in range(40)])
    scores = quietly(LayerEntropy(show(2), "0", bins=4, edges="mass"), x, target=torch.arange(40) % 2)
    torch.testing.assert_close(scores, torch.ones(2, dtype=torch.float64))  # each unit fills two of the four bins


def test_a_unit_that_names_the_class_has_all_its_information():
    y = torch.arange(40) % 4
    x = torch.stack([y.float(), torch.zeros(40), (torch.arange(40) % 3).float()], dim=1)
    scores = quietly(LayerMutualInformation(show(3), "0", bins=4), x, target=y)
    assert scores[0] == pytest.approx(2.0)
    assert scores[1] == 0
    assert scores[2] < 0.2
    assert quietly(LayerKLSelectivity(show(3), "0", bins=4), x, target=y)[0] == pytest.approx(2.0)


def test_dead_and_constant_units_have_no_information():
    x = torch.tensor([[0.0, 3.0, 2.0], [0.0, 3.0, 3.0], [0.0, 3.0, 0.0], [0.0, 3.0, 0.0]])
    for options in ({}, {"threshold": "median"}, {"bins": 3}, {"bins": 3, "edges": "mass"}):
        for cls in OURS:
            scores = quietly(cls(show(3), "0", **options), x, target=[0, 0, 1, 1])
            assert scores[:2].tolist() == [0, 0]
            assert scores[2] > 0


def test_a_layer_of_one_constant_value_has_no_information():
    x = torch.full((6, 2), -1.5)
    for cls in OURS:
        assert quietly(cls(show(2), "0"), x, target=[0, 1] * 3).tolist() == [0, 0]


@pytest.mark.parametrize("options", [{}, {"bins": 9}, {"threshold": "median"}], ids=str)
def test_bias_correction_subtracts_what_permuted_labels_share(digits_net, small_digits, options):
    x, y = small_digits
    values = oracles.layer_values(digits_net, digits_net.relu3, x)
    bins = oracles.quantised(values, edges_of(options, values, 1))

    def difference(cls, per_class=False):
        plain, corrected = (
            quietly(cls(digits_net, "relu3", bias_correction=correct, **options), x, target=y, per_class=per_class)
            for correct in (False, True)
        )
        return (plain - corrected).numpy()

    by_class = oracles.specific_information_by_chance(bins, y.tolist())
    for cls in (LayerMutualInformation, LayerKLSelectivity):
        np.testing.assert_allclose(difference(cls, per_class=True), by_class, atol=1e-10)
    np.testing.assert_allclose(
        difference(LayerMutualInformation), oracles.information_by_chance(bins, y.tolist()), atol=1e-10
    )
    kl = quietly(LayerKLSelectivity(digits_net, "relu3", bias_correction=True, **options), x, target=y)
    expected = (oracles.specific_information(bins, y.tolist()) - by_class).max(axis=0)
    np.testing.assert_allclose(kl.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(("classes", "bins"), [(100, 16), (50, 16), (100, 2), (10, 16), (99, 40)])
def test_noise_has_no_information_once_corrected_however_few_samples(classes, bins):
    x = torch.randn(100, 300, generator=torch.Generator().manual_seed(0))
    y = torch.arange(100) % classes
    plain, corrected = (
        quietly(LayerMutualInformation(show(300), "0", bins=bins, bias_correction=correct), x, target=y)
        for correct in (False, True)
    )
    assert plain.mean() > 0.05
    assert abs(corrected.mean()) < 0.01
    assert corrected.abs().max() < 0.5


def test_more_cells_than_samples_are_warned_of():
    x, y = torch.randn(100, 3), torch.arange(100) % 10
    for cls in (LayerMutualInformation, LayerKLSelectivity):
        with pytest.warns(UserWarning, match=r"160 cells \(bins that occur x 10 classes\) for 100 samples.*fewer bins"):
            cls(show(3), "0", bins=16, edges="mass", bias_correction=True).attribute(x, target=y)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cls(show(3), "0", threshold="median", bias_correction=True).attribute(x, target=y)


@st.composite
def labelled_activations(draw):
    n, units = draw(st.integers(2, 40)), draw(st.integers(1, 5))
    label_set = draw(st.lists(st.integers(-3, 300), min_size=2, max_size=5, unique=True))
    labels = label_set[:2] + draw(st.lists(st.sampled_from(label_set), min_size=n - 2, max_size=n - 2))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = torch.randn(n, units, generator=generator) * torch.tensor(labels)[:, None].sign()
    kind = draw(st.sampled_from(["real", "relu", "coarse"]))
    return {"real": x, "relu": x.relu(), "coarse": x.round()}[kind], labels


@settings(max_examples=60, deadline=None)
@given(
    data=labelled_activations(),
    options=st.sampled_from([{}, {"threshold": "median"}, {"bins": 3}, {"bins": 16, "edges": "mass"}]),
)
def test_information_keeps_its_bounds_for_every_unit(data, options):
    x, labels = data
    entropy, information, kl = (quietly(cls(show(x.shape[1]), "0", **options), x, target=labels) for cls in OURS)
    rarest = min(labels.count(c) for c in set(labels)) / len(labels)
    assert (information >= 0).all()
    assert (information <= entropy + 1e-9).all()
    assert (information <= kl + 1e-9).all()
    assert (kl <= math.log2(1 / rarest) + 1e-9).all()
    assert (entropy <= math.log2(options.get("bins", 16 if options == {} else 2)) + 1e-9).all()


def test_information_keeps_its_bounds_on_real_images(data_folder):
    with np.load(data_folder / "mnist10k.npz") as file:
        chosen = file["train"][::20]
        x, y = torch.tensor(file["images"][chosen]).flatten(1) / 255, torch.tensor(file["labels"][chosen])
    model = nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10)).eval()
    entropy, information, kl = (quietly(cls(model, "1"), x, target=y) for cls in OURS)
    assert (information <= entropy + 1e-9).all()
    assert (information <= kl + 1e-9).all()
    assert (kl <= -torch.log2(torch.bincount(y).min() / len(y)) + 1e-6).all()
    assert information.max() > 0.05


def test_a_quantiser_that_empties_most_units_warns_the_caller(dense, dense_data):
    x, y = dense_data
    with pytest.warns(UserWarning, match=r"7 of 7 units have an entropy below 0\.01 bit") as caught:
        LayerMutualInformation(dense, "0", threshold=1e6).attribute(x, target=y)
    assert [w.filename for w in caught] == [__file__]


def test_the_warning_names_what_helps(dense_data):
    """Units that are always on have no entropy at 0; their median tells them apart, and dead ones stay empty."""
    x, y = dense_data
    values = torch.cat([1 + x.abs(), torch.zeros(len(x), 1)], dim=1)
    relu = nn.Sequential(nn.ReLU()).eval()
    with pytest.warns(UserWarning, match=r'^LayerMutualInformation: .*apart by threshold="median"'):
        assert (LayerMutualInformation(relu, "0").attribute(values, target=y) == 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = LayerMutualInformation(relu, "0", threshold="median").attribute(values, target=y)
    assert (scores[:-1] > 0).all()
    assert scores[-1] == 0


def test_a_quantiser_that_fits_does_not_warn(dense, dense_data):  # passes if nothing is raised
    x, y = dense_data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for cls in OURS:
            cls(dense, "0", threshold="median").attribute(x, target=y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": "mean"}, r"threshold must be a number.*\"median\" or None; got 'mean'"),
        ({"threshold": 0.0, "bins": 4}, "one of them, not both"),
        ({"bins": 1}, "bins must be an int of at least 2; got 1"),
        ({"bins": 2.5}, r"bins must be an int of at least 2; got 2\.5"),
        ({"bins": True}, "bins must be an int of at least 2; got True"),
        ({"bins": 4, "edges": "equal"}, 'edges must be "width" or "mass"; got \'equal\''),
        (
            {"threshold": torch.zeros(2, 3)},
            r"threshold must be finite, a number or \[units\]; got shape \(2, 3\)",
        ),
        ({"threshold": torch.tensor([0.0, math.nan])}, "threshold must be finite"),
        ({"threshold": math.nan}, "threshold must be"),
        ({"threshold": [0.1] * 7}, r"threshold must be a number, a Tensor \[units\]"),
    ],
    ids=str,
)
def test_bad_quantiser_options_are_refused_at_once(dense, options, message):
    for cls in OURS:
        with pytest.raises(ValueError, match=message):
            cls(dense, "0", **options)


def test_a_threshold_of_another_width_than_the_layer_is_refused(dense, dense_data):
    x, y = dense_data
    with pytest.raises(ValueError, match="threshold must have one value for each of the 7 units; got 3"):
        LayerMutualInformation(dense, "0", threshold=torch.zeros(3)).attribute(x, target=y)
