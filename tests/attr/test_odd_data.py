"""Laws of all scores: scale does not matter where it must not; dead units and few samples are scored or refused."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from captum_ablate import (
    CumulativeAblationEvaluator,
    LayerActivationNorm,
    LayerClassSelectivity,
    LayerEntropy,
    LayerKLSelectivity,
    LayerLinearProbe,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerSelectivityActivity,
    LayerTaylor,
    LayerUnitAblation,
    activation_spectrum,
)
from captum_ablate.studies import information_plane, pairwise_synergy

COUNTING = [
    LayerEntropy,
    LayerMutualInformation,
    LayerKLSelectivity,
    partial(LayerEntropy, bins=5),
    partial(LayerMutualInformation, bins=5, edges="mass"),
    partial(LayerMutualInformation, threshold="median"),
    partial(LayerMutualInformation, bins=5, bias_correction=True),
    partial(LayerKLSelectivity, bins=5, bias_correction=True),
]
WITHOUT_UNIT = [*COUNTING, LayerClassSelectivity, partial(LayerLinearProbe, C=1.0)]
IN_UNITS_OF_THE_ACTIVATION = [
    LayerMeanActivity,
    LayerSelectivityActivity,
    partial(LayerSelectivityActivity, selectivity=LayerMutualInformation),
    LayerActivationNorm,
]
OF_THE_OUTPUT = [
    LayerTaylor,
    LayerUnitAblation,
    partial(LayerUnitAblation, reference="mean"),
    partial(LayerUnitAblation, reference="resample"),
]
ALL = [*WITHOUT_UNIT, *IN_UNITS_OF_THE_ACTIVATION, *OF_THE_OUTPUT]
ORACLES = {
    LayerMeanActivity: lambda values, labels: oracles.mean_activity(values),
    LayerClassSelectivity: oracles.class_selectivity,
    LayerSelectivityActivity: oracles.selectivity_activity,
}


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def scaled(factor, units=5):
    """A network whose layer "1" is ``factor`` times its input's ReLU; the outputs do not depend on ``factor``."""
    torch.manual_seed(0)
    head = nn.Linear(units, 3)
    head.weight.data = head.weight.data / factor
    return nn.Sequential(nn.ReLU(), Scale(factor), head).double().eval()


def quietly(attribution, x, y, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*entropy below", UserWarning)
        warnings.filterwarnings("ignore", ".*cells", UserWarning)
        return attribution.attribute(x, target=y, **kwargs)


@settings(max_examples=15, deadline=None)
@given(st.integers(-27, 27), st.integers(0, 1000))
def test_a_power_of_two_changes_no_score_by_a_bit(power, seed):
    """2^-27 is 7e-9, 2^27 is 1e8; a power of two rounds nothing, so even counts in bins must stay."""
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y, factor = torch.arange(40) % 3, 2.0**power
    plain, other = scaled(1.0), scaled(factor)
    for factory in [*COUNTING, LayerClassSelectivity]:
        assert torch.equal(quietly(factory(other, "1"), x, y), quietly(factory(plain, "1"), x, y))
    for factory in [LayerMeanActivity, LayerSelectivityActivity]:
        assert torch.equal(quietly(factory(other, "1"), x, y), quietly(factory(plain, "1"), x, y) * factor)


@settings(max_examples=15, deadline=None)
@given(st.floats(1e-8, 1e8), st.integers(0, 1000))
def test_scores_go_with_the_scale_of_activations_as_their_unit_does(factor, seed):
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = torch.arange(40) % 3
    plain, other = scaled(1.0), scaled(factor)
    for factories, by in ((WITHOUT_UNIT, 1.0), (IN_UNITS_OF_THE_ACTIVATION[:-1], factor), (OF_THE_OUTPUT, 1.0)):
        for factory in factories:
            expected = quietly(factory(plain, "1"), x, y) * by
            found = quietly(factory(other, "1"), x, y)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))
    norm = quietly(LayerActivationNorm(other, "1"), x, y)  # its weights go down as the activations go up
    torch.testing.assert_close(norm, quietly(LayerActivationNorm(plain, "1"), x, y), rtol=1e-6, atol=0)


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-8, 1e8), st.integers(0, 1000))
def test_spectra_and_studies_do_not_go_with_scale(factor, seed):
    x = torch.randn(80, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = torch.arange(80) % 3
    one, other = (activation_spectrum(scaled(f, 6), "1", x, fit_range=(1, 5), replicates=20) for f in (1.0, factor))
    for name in ("alpha", "standard_error", "r2", "participation_ratio", "effective_rank", "redundancy"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-7)
    assert other.refusal == one.refusal
    a, b = (pairwise_synergy(x * f, y, threshold="median", bias_correction=True).synergy for f in (1.0, factor))
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    a, b = (information_plane(x * f, y, threshold="median").information for f in (1.0, factor))
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


COLUMNS = {
    "dead": lambda n, random: np.zeros(n),
    "constant": lambda n, random: np.full(n, 0.1),
    "constant below 0": lambda n, random: np.full(n, -3e-9),
    "normal": lambda n, random: random.normal(size=n),
    "tiny": lambda n, random: 1e-8 * np.abs(random.normal(size=n)),
    "one sample": lambda n, random: 5.0 * np.eye(n)[0],
    "far from 0": lambda n, random: 1e8 + random.normal(size=n),
}


@st.composite
def odd_tables(draw):
    n, seed = draw(st.integers(1, 6)), draw(st.integers(0, 1000))
    kinds = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=3))
    random = np.random.default_rng(seed)
    values = np.stack([COLUMNS[kind](n, random) for kind in kinds], axis=1)
    return values, random.integers(0, 3, size=n)


def shown(units):
    torch.manual_seed(0)
    return nn.Sequential(nn.Identity(), nn.Linear(units, 3)).double().eval()


@settings(max_examples=40, deadline=None)
@given(odd_tables())
def test_odd_tables_get_finite_scores_or_an_error_that_says_why(table):
    values, labels = table
    x, y, model = torch.from_numpy(values), torch.from_numpy(labels), shown(values.shape[1])
    dead = torch.from_numpy((values == 0).all(axis=0))
    for factory in ALL:
        attribution = factory(model, "0")
        if attribution.needs_two_classes and len(set(labels.tolist())) < 2:
            with pytest.raises(ValueError, match="one class only"):
                attribution.attribute(x, target=y)
            continue
        scores = quietly(attribution, x, y)
        assert scores.shape == (values.shape[1],)
        assert scores.isfinite().all()
        assert (scores[dead] == 0).all()
        assert quietly(attribution, x, y, per_class=True).isfinite().all() if factory is LayerUnitAblation else True
        if factory in ORACLES:
            expected = ORACLES[factory](values, labels.tolist())
            np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-9, atol=1e-12)


def of_label(outputs, target):
    return outputs.gather(1, target[:, None])[:, 0]


@settings(max_examples=20, deadline=None)
@given(odd_tables())
def test_odd_tables_are_evaluated_as_any_other(table):
    values, labels = table
    x, units = torch.from_numpy(values), values.shape[1]
    model = shown(units)
    evaluator = CumulativeAblationEvaluator(model, "0", n_random=2, steps=None, metric=of_label, live_units_only=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        comparison = evaluator.compare({"t": torch.arange(float(units))}, (x, torch.from_numpy(labels)))
        assert str(comparison)
    order = list(range(units))[::-1]
    expected = oracles.ablation_values(
        model, model[0], x, labels.tolist(), order, comparison["t"].n_ablated.tolist(), torch.zeros_like, of_label
    )
    np.testing.assert_allclose(comparison["t"].values.numpy(), expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(odd_tables())
def test_odd_tables_have_a_spectrum_or_an_error_that_says_why(table):
    values, _ = table
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if len(values) < 2:
            with pytest.raises(ValueError, match="at least two samples"):
                activation_spectrum(shown(values.shape[1]), "0", torch.from_numpy(values))
            return
        spectrum = activation_spectrum(shown(values.shape[1]), "0", torch.from_numpy(values))
    assert spectrum.eigenvalues.isfinite().all()
    assert spectrum.refusal
    exact = np.linalg.eigvalsh(np.cov(values.T).reshape(values.shape[1], -1))[::-1]
    np.testing.assert_allclose(spectrum.eigenvalues, exact.clip(min=0), rtol=1e-6, atol=1e-12 * max(1, exact.max()))


@pytest.mark.parametrize("factory", ALL)
def test_nan_in_one_batch_is_told_with_its_unit_and_batch(factory):
    x, y = torch.randn(30, 4).double(), torch.arange(30) % 3
    x[17, 2] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinite|NaN"):
        factory(shown(4), "0").attribute(x, target=y, batch_size=10)
