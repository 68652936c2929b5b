"""The joint test of several layers' exponents: its level, its power, and the layers that it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from synthetic_codes import code, identity
from torch import nn

from captum_ablate import activation_spectrum, exponents_differ


def test_equal_layers_are_found_equal_as_often_as_promised_and_others_different():
    class Rotated(nn.Module):
        def __init__(self, seed, alpha):
            super().__init__()
            self.seed, self.alpha = seed, alpha

        def forward(self, x):
            return code(self.alpha, units=60, n=len(x), seed=self.seed)  # another sample of the same population

    def p(seed, alphas):
        net = nn.Sequential(*(Rotated(100 * seed + k, alpha) for k, alpha in enumerate(alphas)))
        names = [str(k) for k in range(len(alphas))]
        x = torch.zeros(500, 1)
        return exponents_differ(activation_spectrum(net, names, x, fit_range=(10, 30), replicates=40, batch_size=500)).p

    null = [p(seed, [1.0, 1.0, 1.0]) for seed in range(8)]
    assert sum(value < 0.05 for value in null) <= 2
    assert min(null) < max(null) - 0.3
    assert p(50, [1.0, 1.4, 1.0]) < 0.01


def test_the_joint_test_needs_spectra_of_one_call():
    x = code(1.0, units=80, n=300)
    one, other = (activation_spectrum(identity(), "0", x[:n], replicates=10) for n in (300, 299))
    with pytest.raises(ValueError, match="must come from one call"):
        exponents_differ([one, other])
    with pytest.raises(ValueError, match="0 has no bootstrapped exponent"):
        exponents_differ([one, activation_spectrum(identity(), "0", x, replicates=0)])
    with pytest.raises(ValueError, match="between 2 and 39 layers"):
        exponents_differ([one])


def test_a_layer_and_its_copy_do_not_differ_and_a_copy_adds_nothing_to_a_test():
    class Scaled(nn.Module):
        def forward(self, x):
            return 3.3 * x

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(70, 70), nn.Dropout(), Scaled(), nn.Linear(70, 70)).eval()
    first, same, scaled, other = activation_spectrum(
        net, ["0", "1", "2", "3"], torch.randn(500, 70), fit_range=(10, 30)
    )
    for copy in (same, scaled):
        equal = exponents_differ([first, copy])
        assert (equal.q, equal.df, equal.p) == (0, 0, 1)
        assert equal.spread == pytest.approx(0, abs=1e-6)
    alone, together = exponents_differ([first, other]), exponents_differ([first, same, scaled, other])
    assert (alone.df, together.df) == (1, 1)
    assert together.q == pytest.approx(alone.q, rel=1e-4)
    assert together.p == pytest.approx(alone.p, rel=1e-2)


def test_the_joint_test_is_hotellings_on_differences_from_the_first():
    x = code(1.0, units=80, n=400)
    net = nn.Sequential(nn.Linear(80, 80).double(), nn.Linear(80, 80).double(), nn.ReLU())
    spectra = activation_spectrum(net, ["0", "1", "2"], x, fit_range=(10, 30))
    found = exponents_differ(spectra)
    apart = np.array([one.alpha - spectra[0].alpha for one in spectra[1:]])
    boot = np.array([(one.replicates - spectra[0].replicates).numpy() for one in spectra[1:]])
    q = apart @ np.linalg.inv(np.cov(boot) * 40 / 39) @ apart
    assert found.q == pytest.approx(q)
    assert found.p == pytest.approx(stats.f.sf(q * (39 - 2 + 1) / (39 * 2), 2, 38))


def test_the_joint_test_needs_more_replicates_than_layers():
    net = nn.Sequential(nn.Linear(80, 80), nn.Linear(80, 80), nn.Linear(80, 80))
    spectra = activation_spectrum(net, ["0", "1", "2"], torch.randn(400, 80), fit_range=(10, 30), replicates=3)
    with pytest.raises(ValueError, match="3 exponents need more than 3 bootstrap replicates"):
        exponents_differ(spectra)
