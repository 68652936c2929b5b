"""Ablation of complex layers, whole numbers and bits, references in their type, and NaN in what is learnt from."""

from __future__ import annotations

import warnings

import numpy as np
import oracles
import pytest
import torch
from captum.attr import LayerActivation, LayerConductance, LayerGradientXActivation
from torch import nn

from captum_ablate import (
    CumulativeAblationEvaluator,
    LayerActivationNorm,
    LayerMeanActivity,
    LayerTaylor,
    LayerUnitAblation,
    LayerWeightNorm,
    unit_scores,
)
from captum_ablate.studies import completeness_delta, unit_drops

SCORES = torch.tensor([3.0, -1.0, 2.0, 0.5, 0.0, 1.0])


class Apply(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


def through(f, back):
    """A network whose layer "0" returns ``f(x)``, and whose head receives ``back`` of that."""
    return nn.Sequential(Apply(f), Apply(back), nn.Linear(6, 3)).eval()


@pytest.fixture
def spectral():
    return through(lambda x: torch.complex(x, 0.5 * x.flip(1)), lambda z: z.abs() + z.imag)


@pytest.fixture
def data():
    return torch.randn(24, 6) * 2, torch.arange(24) % 3


def check(model, data, reference, replacement, metric="logit"):
    """Compare a curve with a hook and full passes that write ``replacement(activation)``."""
    x, y = data
    evaluator = CumulativeAblationEvaluator(model, "0", reference=reference, metric=metric, n_random=1, steps=None)
    curve = evaluator.evaluate(SCORES, data)
    values = oracles.ablation_values(
        model, model[0], x, y.tolist(), curve.order.tolist(), range(7), replacement, metric=metric
    )
    np.testing.assert_allclose(curve.values.numpy(), values, atol=1e-5)
    return curve


@pytest.mark.parametrize("metric", ["logit", "accuracy"])
@pytest.mark.parametrize(
    ("reference", "replacement"),
    [
        ("zero", torch.zeros_like),
        ("mean", lambda z: z.mean(dim=0, keepdim=True).expand_as(z)),
        (
            torch.complex(torch.ones(6), -torch.arange(6.0)),
            lambda z: torch.complex(torch.ones(6), -torch.arange(6.0)).expand_as(z),
        ),
        (torch.ones(6), lambda z: torch.ones(6).to(z).expand_as(z)),
        (lambda z, target: z.conj() * 2, lambda z: z.conj() * 2),
    ],
    ids=["zero", "mean", "complex", "real", "function"],
)
def test_a_complex_layer_is_ablated_like_any_other(spectral, data, reference, replacement, metric):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*discards the imaginary part.*")
        check(spectral, data, reference, replacement, metric)


def test_donors_of_a_complex_layer_keep_their_imaginary_part(spectral, data):
    x, y = data
    evaluator = CumulativeAblationEvaluator(spectral, "0", reference="resample", metric="logit", n_random=0, steps=[6])
    last = evaluator.evaluate(SCORES, data).values[-1]  # all units of each sample are those of its donor
    with torch.no_grad():
        outputs = spectral(x).double()  # [donors, classes]
    distance = (last[:, None] - outputs[:, y].T).abs().min(dim=1).values
    assert float(distance.max()) < 1e-5


def test_a_method_that_needs_real_activations_is_refused_on_a_complex_layer(spectral, data):
    x, y = data
    with pytest.raises(ValueError, match=r"layer '0' has complex activations.*Tensor of scores"):
        CumulativeAblationEvaluator(spectral, "0").evaluate(LayerMeanActivity(spectral, "0"), data)
    for method in (LayerActivation, LayerGradientXActivation, LayerConductance):
        with pytest.raises(ValueError, match=rf"attributions \({method.__name__}\) must be real; got torch.complex64"):
            unit_scores(method(spectral, spectral[0]), data)
    scores = LayerUnitAblation(spectral, "0", metric="logit").attribute(x, target=y)
    expected = oracles.unit_ablation(spectral, spectral[0], x, y.tolist(), torch.zeros_like, "logit").mean(axis=0)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)


def test_the_gradient_of_a_gate_on_a_complex_unit_is_exact(spectral, data):
    x, y = data
    gates = torch.ones(24, 6, requires_grad=True)
    outputs = spectral[2](spectral[1](spectral[0](x) * gates))
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(outputs, y, reduction="sum"), gates)
    scores = LayerTaylor(spectral, "0").attribute(x, target=y)
    torch.testing.assert_close(scores, gradient.abs().mean(0).double(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["int64", "bool"])
def test_a_layer_without_a_gradient_is_refused(data, name):
    x, y = data
    model = through(WHOLE[name], lambda a: a.float())
    with pytest.raises(
        ValueError, match=rf"layer '0' has activations without a gradient \(torch.{name}\).*UnitAblation"
    ):
        LayerTaylor(model, "0").attribute(x, target=y)


@pytest.mark.parametrize("method", [LayerActivationNorm, LayerWeightNorm])
def test_norms_of_complex_activations_are_refused(spectral, data, method):
    with pytest.raises(ValueError, match="layer '0' has complex activations"):
        method(spectral, "0").attribute(data[0], target=data[1])


def test_complex_outputs_metrics_and_sums_are_refused(data):
    x, y = data
    model = nn.Sequential(nn.Identity(), Apply(lambda x: torch.complex(x, -x)), nn.Linear(6, 3, dtype=torch.complex64))
    evaluator = CumulativeAblationEvaluator(model.eval(), "0", n_random=0)
    with pytest.raises(ValueError, match=r"the model's outputs, for this metric, must be real; got torch.complex64"):
        evaluator.evaluate(SCORES, data)
    bad = CumulativeAblationEvaluator(model, "0", n_random=0, metric=lambda outputs, target: outputs[:, 0])
    with pytest.raises(ValueError, match=r"the metric must be real; got torch.complex64"):
        bad.evaluate(SCORES, data)
    real = CumulativeAblationEvaluator(model, "0", n_random=0, metric=lambda outputs, target: outputs.abs()[:, 0])
    assert real.evaluate(SCORES, data).values.isfinite().all()
    with pytest.raises(ValueError, match=r"must be real; got torch.complex64"):
        completeness_delta(LayerActivation(model, model[1]), x, 0, y)


def test_a_complex_reference_of_a_real_layer_is_refused(data):
    model = through(lambda x: x, lambda x: x)
    for reference in (torch.ones(6) * 1j, lambda a, target: a * 1j):
        with pytest.raises(
            ValueError, match=r"the reference is complex \(torch.complex64\).*are not \(torch.float32\)"
        ):
            CumulativeAblationEvaluator(model, "0", reference=reference).evaluate(SCORES, data)


WHOLE = {
    "int64": lambda x: (x * 2).round().long(),
    "uint8": lambda x: (x * 2).round().abs().to(torch.uint8),
    "bool": lambda x: x > 0.3,
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_mean_of_whole_numbers_is_rounded_not_cut(data, name):
    def mean(a):
        return a.double().mean(dim=0, keepdim=True).round().to(a.dtype).expand_as(a)

    model = through(WHOLE[name], lambda a: a.float())
    check(model, data, "mean", mean)
    check(model, data, "zero", torch.zeros_like)


def test_a_reference_with_fractions_for_whole_numbers_is_refused(data):
    model = through(WHOLE["int64"], lambda a: a.float())
    check(model, data, torch.full((6,), 2.0), lambda a: torch.full_like(a, 2))
    for reference in (torch.full((6,), 0.5), lambda a, target: a * 0.5):
        with pytest.raises(
            ValueError, match=r"the reference has fractions \(torch.float32\).*are torch.int64; pass ref"
        ):
            CumulativeAblationEvaluator(model, "0", reference=reference).evaluate(SCORES, data)


@pytest.mark.parametrize("reference", ["mean", "resample"])
def test_nan_in_what_a_reference_is_learnt_from_is_refused(data, reference):
    x, y = data
    model = through(lambda x: x, lambda x: x)
    spoilt = x.clone()
    spoilt[9, 3] = torch.nan
    with pytest.raises(ValueError, match=r"layer '0' has NaN or infinite activations in batch 2, unit 3"):
        CumulativeAblationEvaluator(model, "0", reference=reference).compare(
            {"t": SCORES}, data, ranking_data=(spoilt, y), batch_size=4
        )
    with pytest.raises(ValueError, match=rf'reference="{reference}" cannot be learnt: .*NaN or infinite'):
        LayerUnitAblation(model, "0", reference=reference).attribute(spoilt, target=y)
    with pytest.raises(ValueError, match=rf'reference="{reference}" cannot be learnt: .*NaN or infinite'):
        unit_drops(model, "0", (spoilt, y), reference=reference)
    assert not model[0]._forward_hooks
