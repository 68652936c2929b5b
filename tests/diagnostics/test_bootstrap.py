"""Resampled groups of samples: their spectra are those of the samples drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic_codes import code, identity

from captum_ablate import activation_spectrum
from captum_ablate.diagnostics import bootstrap
from captum_ablate.diagnostics.power_law import fit_power_law


def test_replicates_are_the_fits_of_resampled_groups_of_samples():
    x = code(1.0, units=12, n=300)
    found = activation_spectrum(identity(), "0", x, fit_range=(1, 12), replicates=3, seed=5)
    group = (np.random.default_rng(0).random(300) * bootstrap.GROUPS).astype(int)
    for times, replicate in zip(bootstrap.draw(3, bootstrap.GROUPS, 5), found.replicates, strict=True):
        rows = np.concatenate([np.flatnonzero(group == g) for g, k in enumerate(times.tolist()) for _ in range(k)])
        eigenvalues = np.linalg.eigvalsh(np.cov(x.numpy()[rows], rowvar=False))[::-1].copy()
        assert float(replicate) == pytest.approx(fit_power_law(torch.from_numpy(eigenvalues), (1, 12)).alpha)
