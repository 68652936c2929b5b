"""Exponents calibrated by simulated codes: laws, oracles with samples, and how often the interval holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_codes import code, identity

from captum_ablate import activation_spectrum
from captum_ablate.diagnostics.bootstrap import GroupedCovariance
from captum_ablate.diagnostics.gaussian_codes import calibrated, spectra
from captum_ablate.diagnostics.power_law import exponents


def test_simulated_spectra_are_those_of_codes_with_samples():
    """Against covariances of Gaussian samples: means and spreads of log eigenvalues over many codes."""
    true, n = torch.arange(1, 13, dtype=torch.float64) ** -1.0, 30
    drawn = spectra(true, n, 600, np.random.default_rng(0)).log()
    rng = np.random.default_rng(1)
    plain = []
    for _ in range(600):
        samples = rng.standard_normal((n, 12)) * np.sqrt(true.numpy())
        plain.append(np.log(np.linalg.eigvalsh(np.cov(samples, rowvar=False))[::-1]))
    np.testing.assert_allclose(drawn.mean(dim=0), np.mean(plain, axis=0), atol=0.06)
    np.testing.assert_allclose(drawn.std(dim=0), np.std(plain, axis=0), rtol=0.15)


def test_a_scale_of_the_activations_changes_nothing_and_a_seed_repeats():
    found = spectra(torch.arange(1, 71, dtype=torch.float64) ** -1.0, 400, 1, np.random.default_rng(0))[0]
    one, scaled, again = (
        calibrated(values, 400, (10, 35), simulations=50, seed=3) for values in (found, 1e6 * found, found)
    )
    assert one == again
    assert scaled == pytest.approx(one, rel=1e-9)


def test_of_many_samples_the_fit_stays_as_it_is():
    found = torch.arange(1, 71, dtype=torch.float64) ** -1.0
    one = calibrated(found, 1e7, (10, 35), simulations=50, seed=0)
    assert one.alpha == pytest.approx(1.0, abs=1e-3)
    assert one.standard_error < 1e-3


def fourth_moments(values, groups, ranks):
    """Fourth moments over all samples along the eigenvectors, by plain loops over groups."""
    centred = values - values.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(np.cov(values, rowvar=False))
    eigenvalues, vectors = eigenvalues[::-1], vectors[:, ::-1]
    low, high = ranks
    z = centred @ vectors[:, low - 1 : high] / np.sqrt(eigenvalues[low - 1 : high])
    x = np.log(np.arange(low, high + 1))
    c = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    count, n = groups.max() + 1, len(values)
    products, slopes = [], []
    for a in range(z.shape[1]):
        for b in range(z.shape[1]):
            if a != b:
                sums = [sum(z[i, a] * z[i, b] for i in np.flatnonzero(groups == g)) for g in range(count)]
                products.append(sum(s * s for s in sums) / n * count / (count - 1))
    sums = [(z[groups == g] ** 2 @ c).sum() for g in range(count)]
    for g, one in enumerate(sums):
        slopes.append((one - (groups == g).sum() * sum(sums) / n) ** 2)
    mixed = np.mean(products)
    return mixed, sum(slopes) / n * count / (count - 1) / (2 * (c**2).sum() * mixed)


def test_fourth_moments_are_those_of_plain_loops():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((200, 8)) * np.arange(1, 9) + 5
    groups = rng.integers(0, 10, 200)
    found = GroupedCovariance.of(torch.from_numpy(values), groups, 10).fourth_moments((2, 6))
    assert found == pytest.approx(fourth_moments(values, groups, (2, 6)), rel=1e-8)


@pytest.mark.parametrize(
    ("draw", "mixed", "slope"),
    [
        (lambda rng, n: rng.standard_normal((n, 70)), 1.0, 1.0),
        (lambda rng, n: rng.standard_normal((n, 70)) * rng.choice([0.6, 1.28], (n, 1)), 1.4, 1.0),
        (lambda rng, n: rng.laplace(size=(n, 70)) / np.sqrt(2), 1.0, 2.5),
    ],
)
def test_fourth_moments_tell_lengths_that_vary_from_tails_of_single_directions(draw, mixed, slope):
    """A Laplace variable has a fourth moment of 6, so its square varies by 5 where a Gaussian one varies by 2."""
    rng = np.random.default_rng(1)
    values = draw(rng, 20_000) * np.arange(1, 71) ** -1.0
    found = GroupedCovariance.of(torch.from_numpy(values), rng.integers(0, 40, 20_000), 40).fourth_moments((10, 35))
    assert found.mixed == pytest.approx(mixed, rel=0.07)
    assert found.slope == pytest.approx(slope, rel=0.5)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_the_interval_holds_the_exponent_and_the_bias_is_gone(alpha):
    """Codes of 10 samples for each unit. Without calibration the fit of the flat one is 0.06 too steep."""
    held, apart, fits = [], [], []
    for seed in range(40):
        found = activation_spectrum(identity(), "0", code(alpha, units=64, n=640, seed=seed), replicates=40, seed=seed)
        assert found.no_interval is None
        held.append(found.interval.low <= alpha <= found.interval.high)
        apart.append(found.alpha - alpha)
        fits.append(found.fit.alpha - alpha)
    assert np.mean(held) > 0.87
    assert abs(np.mean(apart)) < 0.015
    assert np.mean(fits) > 0.02
    assert found.bias == pytest.approx(found.fit.alpha - found.alpha)


def test_heavy_tails_and_too_few_samples_get_a_reason_in_place_of_an_interval():
    rng = np.random.default_rng(0)
    heavy = code(1.0, units=64, n=640) * torch.from_numpy(np.sqrt(1 / rng.chisquare(3, (640, 1))))
    found = activation_spectrum(identity(), "0", heavy, replicates=20)
    assert found.no_interval.startswith("heavy tails: fourth moments are ")
    assert np.isnan(found.interval).all()
    assert found.verdict == "undecided"
    assert "(no interval)" in found.finding
    assert found.no_interval in repr(found)
    few = activation_spectrum(identity(), "0", code(1.0, units=64, n=150), replicates=20)
    assert few.no_interval == "too few samples: bring 5 for each unit, more where tails are heavy"
    assert few.alpha == pytest.approx(2 * few.fit.alpha - float(few.replicates.mean()))
    assert few.summary()["no_interval"] == few.no_interval


def test_the_exponent_is_the_one_whose_codes_have_the_fit_on_average():
    """Codes drawn from the calibrated exponent, a straight spectrum, have the fit that was found."""
    true = torch.arange(1, 65, dtype=torch.float64)
    found = spectra(true**-0.7, 400, 1, np.random.default_rng(5))[0]
    alpha = calibrated(found, 400, (10, 32), simulations=400, seed=0).alpha
    fits = exponents(spectra(true**-alpha, 400, 200, np.random.default_rng(6)), (10, 32))
    assert float(fits.mean()) == pytest.approx(float(exponents(found, (10, 32))), abs=0.02)
