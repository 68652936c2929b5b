"""Inference mode, no_grad and autocast around a call, and tensors that inference mode made."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerConductance
from runtime_uses import NAMES, X, Y, activity_of, close, curve_of, network, uses
from torch import nn

from captum_ablate import CumulativeAblationEvaluator, LayerMeanActivity, LayerTaylor, list_layers, unit_scores
from captum_ablate.diagnostics import activation_spectrum


def expected(name):
    model = network()
    return uses(model, model[1])[name]()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_size", [None, 15])
@pytest.mark.parametrize("inside", ["nothing", "inputs", "weights", "all"])
def test_inference_mode_changes_nothing(inside, name, batch_size):
    model, data = network(), (X, Y)
    with torch.inference_mode():
        if inside in ("weights", "all"):
            model = network()
        if inside in ("inputs", "all"):
            data = X.clone(), Y.clone()
        if inside != "inputs":
            assert torch.is_inference_mode_enabled()
            found = uses(model, model[1], data, batch_size=batch_size)[name]()
            assert torch.is_inference_mode_enabled()
            assert not torch.is_grad_enabled()
    if inside == "inputs":
        found = uses(model, model[1], data, batch_size=batch_size)[name]()
    close(found, expected(name))


@pytest.mark.parametrize("name", NAMES)
def test_weights_that_inference_mode_made_stay_the_users(name):
    with torch.inference_mode():
        model = network()
        model.register_buffer("steps", torch.zeros(2))
    before = {key: (id(value), value.clone()) for key, value in model.state_dict(keep_vars=True).items()}
    close(uses(model, model[1])[name](), expected(name))
    after = model.state_dict(keep_vars=True)
    assert {key: id(value) for key, value in after.items()} == {key: one[0] for key, one in before.items()}
    assert all(torch.equal(after[key], value) for key, (_, value) in before.items())
    assert all(p.is_inference() for p in model.parameters())


def test_a_recurrent_layer_made_in_inference_mode():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.act, self.head = nn.LSTM(6, 5, batch_first=True), nn.Tanh(), nn.Linear(5, 3)

        def forward(self, x):
            return self.head(self.act(self.inner(x[:, None])[0][:, 0]))

    torch.manual_seed(0)
    plain = Recurrent().eval()
    torch.manual_seed(0)
    with torch.inference_mode():
        made = Recurrent().eval()
        found = LayerTaylor(made, "act").attribute(X, target=Y)
    close(found, LayerTaylor(plain, "act").attribute(X, target=Y))


def test_other_calls_in_inference_mode():
    model = network()
    rows, spectrum = list_layers(model, X), activation_spectrum(model, "1", X, replicates=0, fit_range=(1, 4))
    taylor = LayerTaylor(model, "1").attribute(X, target=Y)
    with torch.inference_mode():
        assert list_layers(model, X).equals(rows)
        found = activation_spectrum(model, "1", X, replicates=0, fit_range=(1, 4))
        close(torch.tensor(found.eigenvalues), torch.tensor(spectrum.eigenvalues))
        close(LayerTaylor(model, "1").attribute(X, target=Y), taylor)


def test_inference_mode_comes_back_after_an_error():
    with torch.inference_mode():
        with pytest.raises(ValueError, match="unit_dim"):
            LayerMeanActivity(network(), "1", unit_dim=5).attribute(X, target=Y)
        assert torch.is_inference_mode_enabled()


@pytest.mark.parametrize("name", NAMES)
def test_no_grad_changes_nothing(name):
    model = network()
    with torch.no_grad():
        found = uses(model, model[1])[name]()
        assert not torch.is_grad_enabled()
    assert torch.equal(found, expected(name))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_holds_in_statistics_and_curves(dtype):
    model = network()
    with torch.autocast("cpu", dtype=dtype):
        activity, curve = activity_of(model, model[1]), curve_of(model, model[1])
        close(uses(model)["activity"](), activity)
        close(uses(model)["evaluator"](), curve, atol=2e-2 if dtype == torch.bfloat16 else 2e-3)
        assert torch.is_autocast_enabled("cpu")
    with pytest.raises(AssertionError):  # autocast did round
        close(uses(model)["activity"](), activity, atol=0)


@pytest.mark.parametrize("name", ["conductance", "feature ablation", "ablation"])
def test_scores_under_autocast_round_and_no_more(name):
    model = network()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = uses(model, model[1])[name]()
    close(found, expected(name), atol=2e-2 * float(expected(name).abs().max()) + 1e-3)


def test_the_mean_under_autocast_is_summed_in_wide_numbers():
    model, x = network(), X.repeat(100, 1)
    target = Y.repeat(100)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reference = activity_of(model, model[1], x)
        evaluator = CumulativeAblationEvaluator(model, "1", reference="mean", metric="logit", steps=[8], n_random=1)
        found = evaluator.evaluate(torch.arange(8.0), (x, target)).values[-1]
        with torch.no_grad():
            handle = model[1].register_forward_hook(lambda _, __, output: reference.to(output).expand_as(output))
            right = model(x)[torch.arange(len(x)), target]
            handle.remove()
    close(found, right, atol=2e-2)


def test_per_sample_scores_take_inference_arguments():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x, factor):
            return self.inner(x * factor)

    model = Two().eval()
    factor = torch.rand(40, 1) + 1
    right = unit_scores(LayerConductance(model, model.inner[1]), (X, Y), additional_forward_args=factor, n_steps=4)
    with torch.inference_mode():
        made = factor.clone()
    found = unit_scores(LayerConductance(model, model.inner[1]), (X, Y), additional_forward_args=made, n_steps=4)
    close(found, right)
