"""Quantised models: activations count as the numbers they stand for, and pass no gradient."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerActivation, LayerGradientXActivation
from runtime_uses import X, Y, activity_of, close, curve_of, network, uses
from torch import nn
from torch.ao import quantization

from captum_ablate import CumulativeAblationEvaluator, LayerMutualInformation, LayerTaylor, unit_scores

pytestmark = pytest.mark.filterwarnings("ignore:")


def dynamic() -> nn.Module:
    return quantization.quantize_dynamic(network(), {nn.Linear})


def static(*, per_channel: bool = True) -> nn.Module:
    model = quantization.QuantWrapper(network())
    model.qconfig = quantization.get_default_qconfig("fbgemm" if per_channel else "qnnpack")
    prepared = quantization.prepare(model)
    prepared(X)
    return quantization.convert(prepared)


def layers() -> dict[str, tuple[nn.Module, nn.Module]]:
    one, two = dynamic(), static()
    return {
        "dynamic, linear": (one, one[0]),
        "dynamic, after": (one, one[1]),
        "static, linear": (two, two.module[0]),
        "static, after": (two, two.module[1]),
    }


each = pytest.mark.parametrize("kind", list(layers()))


@each
def test_statistics_are_of_the_numbers_that_quantised_ones_stand_for(kind):
    model, layer = layers()[kind]
    close(uses(model, layer)["activity"](), activity_of(model, layer))
    assert LayerMutualInformation(model, layer).attribute(X, target=Y).shape == (8,)


@each
def test_curves_equal_a_hook_that_writes_quantised_zeros(kind):
    model, layer = layers()[kind]
    close(uses(model, layer)["evaluator"](), curve_of(model, layer))


@each
def test_unit_ablation_equals_a_hook_that_writes_quantised_zeros(kind):
    model, layer = layers()[kind]
    found = uses(model, layer)["ablation"]()
    intact = curve_of(model, layer, [])[0]
    right = torch.stack([(intact - curve_of(model, layer, [unit])[1]).mean() for unit in range(8)])
    close(found, right)
    if kind.startswith("dynamic"):
        close(uses(model, layer)["feature ablation"](), right)
    else:
        with pytest.raises(ValueError, match=r"cannot write into the quantised output of .*take LayerUnitAblation"):
            uses(model, layer)["feature ablation"]()


@each
@pytest.mark.parametrize("reference", ["mean", "resample"])
def test_other_references_are_rounded_to_the_layers_numbers(kind, reference):
    model, layer = layers()[kind]
    evaluator = CumulativeAblationEvaluator(model, layer, reference=reference, metric="logit", steps=4, n_random=1)
    assert evaluator.evaluate(torch.arange(8.0), (X, Y)).values.isfinite().all()


@each
def test_gradients_are_refused(kind):
    model, layer = layers()[kind]
    for use in (
        uses(model, layer)["conductance"],
        lambda: unit_scores(LayerGradientXActivation(model, layer), (X, Y)),
        lambda: LayerTaylor(model, layer).attribute(X, target=Y),
    ):
        with pytest.raises(ValueError, match=r"needs gradients, and the model has quantised layers"):
            use()


@each
def test_activations_are_no_gradients(kind):
    model, layer = layers()[kind]
    close(unit_scores(LayerActivation(model, layer), (X, Y)), activity_of(model, layer))


def test_a_gradient_that_does_not_arrive_says_why():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x).detach()

    model = Cut().eval()
    with pytest.raises(ValueError, match=r"LayerConductance needs gradients, and none reaches 'inner\.1'"):
        uses(model, model.inner[1])["conductance"]()
