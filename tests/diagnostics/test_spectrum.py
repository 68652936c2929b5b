"""The spectrum of a layer: what is known of synthetic codes is recovered."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from synthetic_codes import code, identity
from torch import nn

from captum_ablate import activation_spectrum
from captum_ablate.diagnostics import bootstrap


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5, 2.0])
def test_the_exponent_of_a_gaussian_code_is_recovered(alpha):  # claim C3.1
    spectrum = activation_spectrum(identity(), "0", code(alpha), fit_range=(10, 100), replicates=24)
    assert spectrum.alpha == pytest.approx(alpha, abs=0.05)
    assert spectrum.fit.alpha == pytest.approx(alpha, abs=0.05)
    assert spectrum.interval.low - 0.01 < alpha < spectrum.interval.high + 0.01
    assert spectrum.r2 > 0.99
    assert spectrum.fit_range == (10, 100)
    assert spectrum.verdict == ("undecided" if alpha == 1 else "smooth" if alpha > 1 else "non-smooth")


def test_few_samples_steepen_the_fit_and_the_bootstrap_takes_it_off():
    true, fits, corrected, covered = 1.0, [], [], 0
    for seed in range(8):
        spectrum = activation_spectrum(
            identity(), "0", code(true, units=100, n=520, seed=seed), fit_range=(10, 50), replicates=30
        )
        fits.append(spectrum.fit.alpha)
        corrected.append(spectrum.alpha)
        covered += spectrum.interval.low < true < spectrum.interval.high
    assert np.mean(fits) > true + 0.015
    assert abs(np.mean(corrected) - true) < 0.5 * abs(np.mean(fits) - true)
    assert covered >= 6


def test_eigenvalues_are_those_of_numpy_and_positions_are_averaged():
    net = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU()).eval()
    images = torch.randn(30, 2, 6, 6)
    with torch.no_grad():
        values = net(images).double().numpy()
    channels = np.array([[values[i, c].mean() for c in range(5)] for i in range(30)])
    expected = np.linalg.eigvalsh(np.cov(channels, rowvar=False))[::-1]
    found = activation_spectrum(net, net[1], images)
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-9, atol=1e-15)
    elements = activation_spectrum(net, net[1], images, unit_dim=None)
    flat = np.linalg.eigvalsh(np.cov(values.reshape(30, -1), rowvar=False))[::-1]
    np.testing.assert_allclose(elements.eigenvalues[:29], flat[:29], rtol=1e-7)
    assert elements.units == 80
    assert found.static_energy == pytest.approx(channels.var(axis=0, ddof=1).sum() / 2)
    assert found.redundancy == pytest.approx(1 - found.participation_ratio / 5)


def test_a_layer_too_narrow_for_a_fit_keeps_its_dimensionality_and_says_why():
    spectrum = activation_spectrum(identity(), "0", torch.randn(100, 59))
    assert spectrum.verdict == "refused"
    assert math.isnan(spectrum.alpha)
    assert "59 units and 100 samples have 59 eigenvalues" in spectrum.refusal
    assert "the default fit needs 60 (ranks 10 to half of them" in spectrum.refusal
    assert "pass fit_range" in spectrum.refusal
    assert 1 < spectrum.participation_ratio < 59
    assert spectrum.refusal in repr(spectrum)
    assert activation_spectrum(identity(), "0", torch.randn(100, 60), replicates=2).refusal is None
    assert activation_spectrum(identity(), "0", torch.randn(100, 59), fit_range=(10, 29), replicates=2).refusal is None
    few = activation_spectrum(identity(), "0", torch.randn(20, 80), fit_range=(5, 30))
    assert few.refusal.startswith("too narrow for ranks 5 to 30: 80 units and 20 samples have 19 eigenvalues")
    assert "pass a fit_range that ends at 19 or before, take a wider layer, or more samples" in few.refusal
    assert "fit_range" not in activation_spectrum(identity(), "0", torch.randn(6, 80), fit_range=(5, 30)).refusal


def test_where_samples_are_too_few_to_resample_the_last_ranks_there_is_no_exponent():
    """Of 62 samples a replicate holds about 40; the eigenvalues after those are rounding, and the exponent nonsense."""
    x = code(0.0, units=80, n=62)
    found = activation_spectrum(identity(), "0", x, fit_range=(10, 50))
    assert found.verdict == "refused"
    assert math.isnan(found.alpha)
    assert "too few samples for ranks 10 to 50: of 62 samples, a bootstrap replicate has as few as" in found.refusal
    last = int(found.refusal.split("ends at ")[1].split()[0])
    assert 11 < last < 50
    assert activation_spectrum(identity(), "0", x, fit_range=(10, last)).refusal is None
    plain = activation_spectrum(identity(), "0", x, fit_range=(10, 50), replicates=0)
    assert plain.refusal is None
    assert 0 < plain.alpha < 3


@pytest.mark.parametrize("n", [2, 3, 4, 5, 10])
def test_a_handful_of_samples_gets_a_reason_and_not_an_error(n):
    """All of the groups that a replicate draws can be empty."""
    found = activation_spectrum(identity(), "0", torch.randn(n, 12, dtype=torch.float64), fit_range=(1, 3))
    assert found.verdict == "refused"
    expected = np.linalg.eigvalsh(np.cov(torch.zeros(n, 12).numpy(), rowvar=False))
    assert len(found.eigenvalues) == len(expected)
    assert 1 <= found.participation_ratio < n


def test_units_that_never_vary_have_no_variance_and_no_say():
    x = code(1.0, units=70, n=400)
    with_dead = torch.cat([x[:, :30], torch.full((400, 9), 0.1, dtype=x.dtype), x[:, 30:]], dim=1)
    found, expected = (activation_spectrum(identity(), "0", one, replicates=20) for one in (with_dead, x))
    np.testing.assert_allclose(found.eigenvalues[:70], expected.eigenvalues, rtol=1e-9)
    assert float(found.eigenvalues[70:].max()) < 1e-12
    assert found.alpha == pytest.approx(expected.alpha, rel=1e-6)
    nothing = activation_spectrum(identity(), "0", torch.full((20, 5), 0.1, dtype=torch.float64))
    assert nothing.verdict == "refused"
    assert math.isnan(nothing.participation_ratio)


def test_the_order_of_samples_and_of_units_does_not_matter():
    x = code(1.0, units=20, n=200)
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.randperm(200, generator=generator), torch.randperm(20, generator=generator)
    found, expected = (activation_spectrum(identity(), "0", one) for one in (x[rows][:, columns], x))
    np.testing.assert_allclose(found.eigenvalues, expected.eigenvalues, rtol=1e-9)
    spread = x.T.contiguous().T  # the same values, columns first in memory
    np.testing.assert_allclose(activation_spectrum(identity(), "0", spread).eigenvalues, expected.eigenvalues)


@pytest.mark.parametrize("sizes", [[200], [1] * 200, [199, 1], [7, 93, 50, 50]])
def test_a_covariance_streamed_in_any_batches_has_numpys_eigenvalues(sizes):
    x = 1e3 + code(1.0, units=20, n=200)
    found = activation_spectrum(identity(), "0", list(x.split(sizes)))
    expected = np.linalg.eigvalsh(np.cov(x.numpy(), rowvar=False))[::-1]
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-8)


def test_layers_in_a_list_share_a_pass_and_a_tuple_output_gives_a_tuple():
    class Two(nn.Module):
        def forward(self, x):
            return x, 2 * x

    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), Two()).eval()
    calls = []
    net.register_forward_pre_hook(lambda *_: calls.append(1))
    x = torch.randn(20, 4)
    first, (one, double) = activation_spectrum(net, ["1", net[2]], x)
    assert len(calls) == 2  # one for both layers, one with a sample less to see which tensors have the samples first
    assert (first.layer, one.layer) == ("1", "2")
    np.testing.assert_allclose(double.eigenvalues, 4 * one.eigenvalues)


def test_the_model_and_random_states_are_left_as_they_came():
    net = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.ReLU())
    with pytest.raises(ValueError, match="training mode: Dropout"):
        activation_spectrum(net, "2", torch.randn(5, 4))
    net.eval()
    x = torch.randn(30, 4)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  the user's state
    activation_spectrum(net, "2", x, fit_range=(1, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fit_range": (0, 5)}, r"first and last rank of the fit, from 1, with one between; got \(0, 5\)"),
        ({"fit_range": (4, 5)}, "got"),
        ({"fit_range": (1, 2.5)}, "got"),
        ({"stimulus_dim": 0}, "stimulus_dim must be the dimension of the stimuli, above 0; got 0"),
        ({"replicates": -1}, "replicates must be an int, at least 0"),
    ],
)
def test_wrong_settings_are_told(settings, message):
    with pytest.raises(ValueError, match=message):
        activation_spectrum(identity(), "0", torch.randn(10, 4), **settings)


def test_one_sample_has_no_covariance():
    with pytest.raises(ValueError, match="at least two samples; layer '0' got 1"):
        activation_spectrum(identity(), "0", torch.randn(1, 4))


def test_the_threshold_goes_with_the_dimension_of_the_stimuli():
    x = code(2.0, units=80, n=3000)
    images = activation_spectrum(identity(), "0", x, replicates=20)
    path = activation_spectrum(identity(), "0", x, replicates=20, stimulus_dim=1)
    assert (images.threshold, path.threshold) == (1, 3)
    assert (images.verdict, path.verdict) == ("smooth", "non-smooth")


def test_without_replicates_or_room_for_groups_there_is_no_interval(monkeypatch):
    x = code(1.0, units=80, n=500)
    plain = activation_spectrum(identity(), "0", x, replicates=0)
    assert math.isnan(plain.interval.low)
    assert plain.alpha == plain.fit.alpha
    assert plain.verdict == "undecided"
    monkeypatch.setattr(bootstrap, "GROUP_BYTES", 7 * 8 * 80 * 80)
    tight = activation_spectrum(identity(), "0", x)
    assert tight.groups == 1
    assert math.isnan(tight.interval.low)
    assert tight.fit == pytest.approx(plain.fit)


def test_a_frame_and_a_picture_show_the_spectrum():
    spectrum = activation_spectrum(identity(), "0", code(1.0, units=80, n=500), replicates=10)
    frame = spectrum.to_frame()
    assert frame["rank"].tolist() == list(range(1, 81))
    assert frame["share"].sum() == pytest.approx(1)
    assert frame["fitted"].notna().sum() == 31
    axes = spectrum.plot()
    assert "80 units, 500 samples" in axes.get_title(loc="left")
    assert "slope -1" in axes.get_legend().get_texts()[2].get_text()
    narrow = activation_spectrum(identity(), "0", torch.randn(30, 4))
    assert len(narrow.plot().lines) == 1
    assert narrow.summary()["refusal"]
    assert pickle.loads(pickle.dumps(spectrum)).alpha == spectrum.alpha


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_what_a_narrow_type_rounds_is_no_rank(dtype):
    """Five directions seen by 100 units: in half precision the rounding has full rank, and a decay of its own."""
    generator = torch.Generator().manual_seed(0)
    code = (
        torch.randn(3000, 5, generator=generator, dtype=torch.float64)
        @ torch.randn(5, 100, generator=generator).double()
    )
    net = torch.nn.Sequential(torch.nn.Identity())
    spectrum = activation_spectrum(net, "0", (code + 3).to(dtype), replicates=0)
    assert "have 5 eigenvalues above rounding" in spectrum.refusal
