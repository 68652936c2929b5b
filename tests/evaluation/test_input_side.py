"""Units of a layer's input: the same as those of an ``nn.Identity`` before the layer, and heads without surgery."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from captum.attr import (
    InternalInfluence,
    LayerActivation,
    LayerConductance,
    LayerDeepLift,
    LayerFeatureAblation,
    LayerFeaturePermutation,
    LayerGradCam,
    LayerGradientXActivation,
    LayerIntegratedGradients,
)
from torch import nn

from captum_ablate import (
    AblationGrid,
    Comparison,
    CumulativeAblationEvaluator,
    LayerClassSelectivity,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerUnitAblation,
    unit_scores,
)


class Net(nn.Module):
    """A small network with an ``nn.Identity`` before its second layer, which may be called by keyword."""

    def __init__(self, keyword=False, extra=False):
        super().__init__()
        self.first, self.before = nn.Linear(5, 8), nn.Identity()
        self.second, self.last = (Sum(8, 6) if extra else nn.Linear(8, 6)), nn.Linear(6, 3)
        self.keyword, self.extra = keyword, extra

    def forward(self, x):
        hidden = self.before(self.first(x).relu())
        if self.extra:
            return self.last(self.second(hidden, offset=x[:, :1]).relu())
        hidden = self.second(input=hidden) if self.keyword else self.second(hidden)
        return self.last(hidden.relu())


class Sum(nn.Linear):
    def forward(self, x, offset):
        return super().forward(x) + offset


SHAPES = [{}, {"keyword": True}, {"extra": True}]
"""The layer gets one tensor, one tensor by keyword, or several."""


def built(**options):
    torch.manual_seed(0)
    return Net(**options).eval()


@pytest.fixture
def data():
    torch.manual_seed(1)
    return torch.randn(30, 5), torch.arange(30) % 3


def ours(model, layer):
    return {
        "given": torch.arange(8.0).roll(3),
        "activity": LayerMeanActivity(model, layer),
        "selectivity": LayerClassSelectivity(model, layer),
        "information": LayerMutualInformation(model, layer),
        "unit ablation": LayerUnitAblation(model, layer),
    }


def captums(model, layer):
    gradcam = partial(unit_scores, LayerGradCam(model, layer), attr_dim_summation=False)
    kinds = [LayerActivation, LayerConductance, LayerDeepLift, LayerFeatureAblation, LayerGradientXActivation]
    kinds += [LayerIntegratedGradients, InternalInfluence]
    return {"grad-cam": gradcam} | {kind.__name__: kind(model, layer) for kind in kinds}


def both(shape, data, methods_of, **options):
    """Return the comparisons at the input of ``second``, and at the output of the Identity before it."""
    options = {"metric": "logit", "steps": None, "n_random": 3, **options}
    found = []
    for name, at_input in (("second", True), ("before", False)):
        model = built(**shape)
        evaluator = CumulativeAblationEvaluator(model, name, attribute_to_layer_input=at_input, **options)
        methods = methods_of(model, model.get_submodule(name))
        found.append(evaluator.compare(methods, data, ranking_data=(data[0][:20], data[1][:20]), batch_size=8))
    return found


def assert_same(ours, expected):
    assert set(ours.curves) == set(expected.curves)
    assert ours.failed == expected.failed
    for name, curve in expected.curves.items():
        torch.testing.assert_close(ours[name].scores, curve.scores, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours[name].values, curve.values, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours[name].ascending_values, curve.ascending_values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: next(iter(s), "positional"))
@pytest.mark.parametrize("reference", ["zero", "mean", "resample", lambda a, y: a * 0.5 + 1], ids=["z", "m", "r", "f"])
def test_curves_equal_those_of_an_identity_before_the_layer(shape, reference, data):
    assert_same(*both(shape, data, ours, reference=reference))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: next(iter(s), "positional"))
def test_captums_attributions_equal_those_of_an_identity_before_the_layer(shape, data):
    at_input, before = both(shape, data, captums)
    assert len(at_input.curves) == len(captums(built(), "second"))
    assert_same(at_input, before)


def test_channels_of_a_convolution(digits_net, small_digits):
    x, y = small_digits
    options = {"metric": "logit", "steps": 4, "n_random": 2}
    scores = torch.rand(8, generator=torch.Generator().manual_seed(0))
    before = CumulativeAblationEvaluator(digits_net, "pool1", **options).evaluate(scores, (x[:40], y[:40]))
    at_input = CumulativeAblationEvaluator(digits_net, "conv2", attribute_to_layer_input=True, **options)
    torch.testing.assert_close(at_input.evaluate(scores, (x[:40], y[:40])).values, before.values)


def test_the_input_of_the_very_first_layer_is_the_models_input(data):
    x, y = data
    model = built()
    evaluator = CumulativeAblationEvaluator(
        model, "first", attribute_to_layer_input=True, metric="logit", steps=None, n_random=0
    )
    curve = evaluator.evaluate(LayerMeanActivity(model, "first"), data)
    torch.testing.assert_close(curve.scores, x.double().mean(0))
    for step, values in enumerate(curve.values):
        without = x.clone()
        without[:, curve.order[:step]] = 0
        torch.testing.assert_close(values.float(), model(without)[range(30), y].detach(), atol=1e-5, rtol=1e-5)


def test_what_cannot_attribute_to_an_input_is_not_applicable(data):
    model = built()
    evaluator = CumulativeAblationEvaluator(model, "second", attribute_to_layer_input=True, n_random=0)
    methods = {
        "given": torch.rand(8),
        "permutation": LayerFeaturePermutation(model, model.second),
        "other side": partial(
            unit_scores, LayerConductance(model, model.second), attribute_to_layer_input=False, n_steps=5
        ),
        "same side": partial(unit_scores, LayerActivation(model, model.second), attribute_to_layer_input=True),
    }
    compared = evaluator.compare(methods, data)
    assert set(compared.curves) == {"given", "same side"}
    assert "cannot attribute to a layer's input" in compared.failed["permutation"]
    assert "give it to the evaluator alone" in compared.failed["other side"]
    with pytest.raises(ValueError, match="attribute_to_layer_input is True for LayerActivation and False"):
        CumulativeAblationEvaluator(model, "second").evaluate(methods["same side"], data)


def test_several_layers_estimate_until_and_a_saved_result(data, tmp_path):
    model = built()
    options = {"attribute_to_layer_input": True, "metric": "accuracy", "steps": 4, "n_random": 2}
    evaluator = CumulativeAblationEvaluator(model, ["second", "last"], **options)
    curve = evaluator.evaluate(LayerMeanActivity(model, ["second", "last"]), data, ranking_data=data)
    assert curve.layers == {"input of second": 8, "input of last": 6}
    assert evaluator.estimate({"given": torch.rand(14)}, data).seconds > 0
    one = CumulativeAblationEvaluator(model, "second", **options)
    compared = one.compare({"activity": LayerMeanActivity(model, "second")}, data, until=0.4)
    assert compared.provenance.layer == "input of second"
    assert "input of second (8 units" in str(compared)
    compared.save(tmp_path / "run")
    assert Comparison.load(tmp_path / "run").provenance == compared.provenance


def test_a_study_of_an_evaluator_looks_at_the_same_side(data):
    frames = []
    for name, at_input in (("second", True), ("before", False)):
        evaluator = CumulativeAblationEvaluator(
            built(), name, attribute_to_layer_input=at_input, metric="logit", reference="mean"
        )
        grid = AblationGrid.of(evaluator, data, tiles=2, min_units=1)
        deficits = grid.deficits(evaluator, data, n_random=2)
        frames.append(deficits)
    torch.testing.assert_close(frames[0].excess, frames[1].excess)
    assert frames[0].layer == "input of second"


def test_another_value_than_true_or_false_is_refused():
    with pytest.raises(TypeError, match="attribute_to_layer_input must be True or False; got 'yes'"):
        CumulativeAblationEvaluator(built(), "second", attribute_to_layer_input="yes")


class Attention(nn.Module):
    """Self-attention by hand: q, k, v and a projection that is called as a module."""

    def __init__(self, width, heads):
        super().__init__()
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))
        self.heads = heads

    def forward(self, x, without=()):
        n, t, width = x.shape
        q, k, v = (f(x).reshape(n, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(width / self.heads), dim=-1) @ v
        for head in without:
            mixed[:, head] = 0
        return self.proj(mixed.transpose(1, 2).reshape(n, t, width))


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.head = Attention(12, 4), nn.Linear(12, 3)

    def forward(self, x, without=()):
        return self.head((x + self.attention(x, without)).mean(1))


def test_heads_are_ablated_at_the_input_of_the_projection():
    torch.manual_seed(0)
    model, x, y = Reader().eval(), torch.randn(20, 7, 12), torch.arange(20) % 3
    mask = torch.arange(12) // 3
    options = {"unit_dim": -1, "layer_mask": mask}
    evaluator = CumulativeAblationEvaluator(
        model, "attention.proj", attribute_to_layer_input=True, metric="logit", steps=None, n_random=0, **options
    )
    ablation = LayerUnitAblation(model, "attention.proj", metric="logit", **options)
    curve = evaluator.evaluate(ablation, (x, y))
    with torch.no_grad():
        alone = [(model(x) - model(x, [head]))[range(20), y].mean() for head in range(4)]
        torch.testing.assert_close(curve.scores.float(), torch.stack(alone), atol=1e-5, rtol=1e-4)
        for step, values in enumerate(curve.values):
            expected = model(x, curve.order[:step].tolist())[range(20), y]
            torch.testing.assert_close(values.float(), expected, atol=1e-5, rtol=1e-4)
