"""A model with one logit is binary: everything equals the model with the two outputs -z/2 and z/2."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from captum.attr import (
    InternalInfluence,
    LayerConductance,
    LayerFeatureAblation,
    LayerGradCam,
    LayerGradientXActivation,
)
from torch import nn

from captum_ablate import CumulativeAblationEvaluator, LayerUnitAblation, unit_scores

N = 30


class OneLogit(nn.Sequential):
    """A sequence whose last output is a column, or flat."""

    flat = False

    def forward(self, x):
        z = super().forward(x)
        return z[:, 0] if self.flat else z


class Two(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        z = self.net(x).reshape(-1)
        return torch.stack([-z / 2, z / 2], dim=1)


@pytest.fixture(params=["linear", "deep"])
def net(request):
    torch.manual_seed(0)
    behind = [nn.Linear(7, 1)] if request.param == "linear" else [nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 1)]
    return OneLogit(nn.Linear(6, 7), nn.ReLU(), *behind).eval()


@pytest.fixture
def data():
    torch.manual_seed(1)
    return torch.randn(N, 6), torch.arange(N) % 2


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("metric", ["accuracy", "log_likelihood", "margin"])
@pytest.mark.parametrize("reference", ["zero", "mean"])
def test_curves_equal_those_of_two_outputs(net, data, flat, metric, reference):
    net.flat = flat
    two = Two(net).eval()
    methods = {"ablation": LayerUnitAblation(net, "1"), "ready": torch.rand(7)}
    own = CumulativeAblationEvaluator(net, "1", metric=metric, reference=reference, n_random=3, steps=None)
    plain = CumulativeAblationEvaluator(two, "net.1", metric=metric, reference=reference, n_random=3, steps=None)
    found = own.compare(methods, data, batch_size=11)
    expected = plain.compare({**methods, "ablation": LayerUnitAblation(two, "net.1")}, data)
    for name in methods:
        torch.testing.assert_close(found[name].scores, expected[name].scores, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found[name].values, expected[name].values, rtol=1e-5, atol=1e-5)


def test_the_logit_is_of_the_label_s_side(net, data):
    x, y = data
    curve = CumulativeAblationEvaluator(net, "1", metric="logit", n_random=2).evaluate(torch.rand(7), data)
    side = 2.0 * y - 1
    torch.testing.assert_close(curve.values[0].double(), (net(x)[:, 0].detach() * side).double())


METHODS = {
    "conductance": (LayerConductance, {}),
    "gradient x activation": (LayerGradientXActivation, {}),
    "internal influence": (InternalInfluence, {"n_steps": 5}),
    "ablation": (LayerFeatureAblation, {}),
    "ablation of 4": (LayerFeatureAblation, {"perturbations_per_eval": 4}),
    "grad cam": (LayerGradCam, {"attr_dim_summation": False, "relu_attributions": True}),
}


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("target", ["label", "prediction"])
def test_attributions_are_of_the_side(net, data, flat, method, target):
    net.flat = flat
    x, y = data
    kind, options = METHODS[method]
    if kind is LayerFeatureAblation and flat and options:
        pytest.skip("Captum needs one output a sample to be a column")
    two = Two(net)

    class Sides(nn.Module):  # each side's own logit, not half of the difference
        def __init__(self):
            super().__init__()
            self.two = two

        def forward(self, x):
            return 2 * self.two(x)

    sides = Sides().eval()
    own = unit_scores(kind(net, net[1]), (x, y), target=target, **options)
    expected = unit_scores(kind(sides, net[1]), (x, y), target=target, **options)
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-6)


def test_an_index_or_none_is_the_logit_itself(net, data):
    x, y = data
    attribution = LayerGradientXActivation(net, net[1])
    signed = unit_scores(attribution, (x, y), target=0, per_class=True)
    own = unit_scores(attribution, (x, y), per_class=True)
    torch.testing.assert_close(own, signed * torch.tensor([[-1.0], [1.0]]))
    net.flat = True
    torch.testing.assert_close(unit_scores(attribution, (x, y), target=None, per_class=True), signed)


def test_other_labels_are_refused(net, data):
    x, y = data
    for metric in ("accuracy", "log_likelihood", "logit", "margin"):
        with pytest.raises(ValueError, match=r"labels must be 0 or 1, because the model returns one logit.*got 2"):
            CumulativeAblationEvaluator(net, "1", metric=metric).evaluate(torch.rand(7), (x, y + 1))
    with pytest.raises(ValueError, match="labels must be 0 or 1"):
        unit_scores(LayerConductance(net, net[1]), (x, y + 1))


def test_methods_of_captum_work_in_a_comparison(net, data):
    methods = {
        "conductance": LayerConductance(net, net[1]),
        "prediction": partial(unit_scores, LayerConductance(net, net[1]), target="prediction"),
    }
    found = CumulativeAblationEvaluator(net, "1", metric="log_likelihood", n_random=2).compare(methods, data)
    torch.testing.assert_close(found["conductance"].scores, unit_scores(methods["conductance"], data))
    assert len(found) == 2
