"""The straight line through a log-log spectrum, and the number of dimensions that share the variance."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from scipy import stats

from captum_ablate import participation_ratio
from captum_ablate.diagnostics.power_law import effective_rank, exponents, fit_power_law, rank_of


def test_an_exact_power_law_is_recovered_exactly():
    eigenvalues = 3 * torch.arange(1, 101, dtype=torch.float64) ** -1.7
    alpha, level, r2 = fit_power_law(eigenvalues, (5, 60))
    assert alpha == pytest.approx(1.7, abs=1e-12)
    assert math.exp(level) == pytest.approx(3)
    assert r2 == pytest.approx(1)


def test_the_fit_is_that_of_scipy_over_the_asked_ranks_only():
    eigenvalues = torch.sort(torch.rand(40, dtype=torch.float64), descending=True).values
    line = stats.linregress(np.log(np.arange(4, 21)), np.log(eigenvalues.numpy()[3:20]))
    alpha, level, r2 = fit_power_law(eigenvalues, (4, 20))
    assert (alpha, level, r2) == pytest.approx((-line.slope, line.intercept, line.rvalue**2))


def test_many_spectra_are_fitted_at_once():
    spectra = torch.sort(torch.rand(3, 40, dtype=torch.float64), descending=True).values
    each = [fit_power_law(one, (4, 20)).alpha for one in spectra]
    assert exponents(spectra, (4, 20)).tolist() == pytest.approx(each)


@pytest.mark.parametrize("fit_range", [(0, 5), (5, 5), (6, 5), (3, 11)])
def test_ranks_that_are_not_there_are_refused(fit_range):
    with pytest.raises(
        ValueError, match=re.escape(f"1 <= first < last <= 10 (the number of eigenvalues); got {fit_range}")
    ):
        fit_power_law(torch.ones(10), fit_range)


def test_dimensions_that_share_the_variance_equally_are_counted():
    for count in (1, 3, 10):
        shared = torch.cat([torch.full((count,), 2.5), torch.zeros(10 - count)])
        assert participation_ratio(shared) == pytest.approx(count)
        assert effective_rank(shared) == pytest.approx(count)


def test_the_participation_ratio_is_between_1_and_the_effective_rank():
    values = torch.rand(20, dtype=torch.float64)
    assert 1 < participation_ratio(values) < effective_rank(values) < 20
    assert participation_ratio(values) == pytest.approx(float(values.sum() ** 2 / (values**2).sum()))
    assert participation_ratio(7 * values.flip(0)) == pytest.approx(participation_ratio(values))


def test_no_variance_at_all_has_no_dimension():
    assert math.isnan(participation_ratio(torch.zeros(4)))
    assert math.isnan(effective_rank(torch.zeros(4)))


def test_what_is_no_spectrum_is_refused():
    with pytest.raises(ValueError, match="one spectrum"):
        participation_ratio(torch.eye(3))
    with pytest.raises(ValueError, match=r"at least 0; got -1"):
        participation_ratio(torch.tensor([2.0, -1.0]))


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy, lambda e: e[::-1], lambda e: list(e)])
def test_what_rounding_puts_below_0_counts_as_0(convert, scale):
    """A covariance of fewer samples than units has eigenvalues of 0, which come out on either side of it."""
    values = np.linalg.eigvalsh(np.cov(np.random.default_rng(0).standard_normal((10, 40)).T)) * scale
    assert values.min() < 0
    kept = values[-9:]
    assert participation_ratio(convert(values)) == pytest.approx(kept.sum() ** 2 / (kept**2).sum())
    shares = kept / kept.sum()
    assert effective_rank(convert(values)) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_eigenvalues_in_float32_may_be_as_far_below_0_as_float32_rounds():
    samples = torch.randn(10, 40)
    values = torch.linalg.eigvalsh(torch.cov(samples.T))
    exact = torch.linalg.eigvalsh(torch.cov(samples.double().T))
    assert participation_ratio(values) == pytest.approx(participation_ratio(exact), rel=1e-4)


def test_a_spectrum_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="must be finite"):
        participation_ratio([1.0, float("nan")])


def test_rounding_does_not_count_as_rank():
    assert rank_of(torch.tensor([1.0, 0.1, 1e-17, 0.0], dtype=torch.float64)) == 2


@pytest.mark.parametrize("scale", [1e-200, 1e-20, 1.0, 1e200])
def test_the_participation_ratio_does_not_go_with_scale(scale):
    assert participation_ratio(torch.tensor([1.0, 0.5], dtype=torch.float64) * scale) == pytest.approx(1.8)
