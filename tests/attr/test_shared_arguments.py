"""Arguments that are not per sample are never cut, and reach the model as they are, also inside Captum."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from captum.attr import (
    InternalInfluence,
    LayerConductance,
    LayerDeepLift,
    LayerFeatureAblation,
    LayerGradientXActivation,
    LayerIntegratedGradients,
)
from torch import nn

from captum_ablate import (
    Batch,
    CumulativeAblationEvaluator,
    LayerMeanActivity,
    LayerUnitAblation,
    unit_scores,
)
from captum_ablate.inputs.batches import as_batches

N, D = 8, 5


class Matching(nn.Module):
    """Logits are products of a sample's code with the embedding of each class."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.last = nn.Linear(D, 6), nn.ReLU(), nn.Linear(6, D)

    def forward(self, x, embeddings):
        return self.last(self.act(self.first(x))) @ embeddings.T


class ByHand(nn.Module):
    def __init__(self, model, embeddings):
        super().__init__()
        self.model, self.embeddings = model, embeddings

    def forward(self, x):
        return self.model(x, self.embeddings)


@pytest.fixture
def case():
    torch.manual_seed(3)
    model = Matching().eval()
    return model, torch.randn(N, D), torch.randn(N, D), torch.arange(N) % 4


METHODS = {
    "conductance": (LayerConductance, {}),
    "integrated gradients": (LayerIntegratedGradients, {"n_steps": 7}),
    "internal influence": (InternalInfluence, {"n_steps": 7}),
    "deep lift": (LayerDeepLift, {}),
    "gradient x activation": (LayerGradientXActivation, {}),
    "feature ablation": (LayerFeatureAblation, {}),
    "4 features at once": (LayerFeatureAblation, {"perturbations_per_eval": 4}),
    "with a baseline": (LayerConductance, {"baselines": 0.5}),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("as_input", [True, False], ids=["input", "additional"])
@pytest.mark.parametrize("classes", [N, 4])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_captum_sees_shared_arguments_as_if_bound_by_hand(case, method, as_input, classes, batch_size):
    model, x, embeddings, y = case
    embeddings = embeddings[:classes]
    kind, options = METHODS[method]
    hand = ByHand(model, embeddings)
    expected = unit_scores(kind(hand, model.act), (x, y), **options)
    data = Batch((x, embeddings), y, shared=(1,)) if as_input else Batch((x,), y, (embeddings,), shared=(1,))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*shared")
        own = unit_scores(kind(model, model.act), data, batch_size=batch_size, **options)
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-7)


def test_a_baseline_for_each_input_loses_that_of_the_shared_one(case):
    model, x, embeddings, y = case
    data = Batch((x, embeddings), y, shared=(1,))
    own = unit_scores(LayerConductance(model, model.act), data, baselines=(x.flip(0), embeddings))
    expected = unit_scores(LayerConductance(ByHand(model, embeddings), model.act), (x, y), baselines=x.flip(0))
    torch.testing.assert_close(own, expected)


def test_the_user_s_attribution_and_model_are_left_as_they_were(case):
    model, x, embeddings, y = case
    attribution = LayerDeepLift(model, model.act)
    unit_scores(attribution, Batch((x, embeddings), y, shared=(1,)))
    assert attribution.forward_func is model
    assert attribution.model is model
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("as_input", [True, False], ids=["input", "additional"])
@pytest.mark.parametrize("samples", [8, 24])
def test_an_argument_with_a_row_per_sample_by_accident_is_noticed_and_not_cut(case, as_input, samples):
    model, _, embeddings, _ = case
    x, y = torch.randn(samples, D), torch.arange(samples) % 4
    hand = ByHand(model, embeddings)
    data = Batch((x, embeddings), y) if as_input and samples == N else Batch((x,), y, (embeddings,))
    expected = unit_scores(LayerFeatureAblation(hand, model.act), (x, y))
    batches = [data] if samples == N else [data.take(slice(k, k + N)) for k in range(0, samples, N)]
    with pytest.warns(UserWarning, match=r"argument 1 of the model looks shared.*shared=\(1,\)"):
        own = unit_scores(LayerFeatureAblation(model, model.act), batches, perturbations_per_eval=4)
    torch.testing.assert_close(own, expected)


def test_cut_by_batch_size_too(case):
    model, _, _, _ = case
    x, y, embeddings = torch.randn(24, D), torch.arange(24) % 4, torch.randn(24, D)
    with pytest.warns(UserWarning, match="argument 1 of the model looks shared"):
        own = unit_scores(LayerFeatureAblation(model, model.act), Batch((x,), y, (embeddings,)), batch_size=6)
    torch.testing.assert_close(own, unit_scores(LayerFeatureAblation(ByHand(model, embeddings), model.act), (x, y)))
    with pytest.warns(UserWarning, match="argument 1 of the model looks shared"):
        mean = LayerMeanActivity(model, "act").attribute(Batch((x,), y, (embeddings,)), batch_size=6)
    torch.testing.assert_close(mean, LayerMeanActivity(ByHand(model, embeddings), model.act).attribute(x, target=y))


def test_rows_per_sample_in_one_batch_only_are_refused(case):
    _, x, embeddings, y = case
    batches = [Batch((x[:k],), y[:k], (embeddings,)) for k in (3, 8)]
    with pytest.raises(ValueError, match=r"argument 1 has one row per sample in batch 1 \(8 samples\).*shared=\(1,\)"):
        list(as_batches(batches))
    with pytest.raises(ValueError, match=r"if all samples share input 1, name it: Batch\(inputs, target, shared"):
        list(as_batches([Batch((x[:3], embeddings), y[:3])]))


def test_arguments_that_are_per_sample_are_not_doubted(case):
    model, x, _, y = case

    def both(x, gain, table):
        return model.last(model.act(model.first(x))) * gain + table["bias"]

    data = Batch((x,), y, (torch.rand(N, D), {"bias": torch.rand(N, D), "scale": 3}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = unit_scores(LayerGradientXActivation(both, model.act), data)
        own = unit_scores(LayerConductance(both, model.act), data, batch_size=3)
    expected = unit_scores(LayerConductance(both, model.act), data)
    torch.testing.assert_close(own, expected)
    assert whole.shape == (6,)


def test_keys_of_a_dict_are_named_and_dicts_reach_captum(case):
    model, x, embeddings, y = case

    class Dicts(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, held):
            return self.model(held["x"], held["classes"])

    own = Dicts().eval()
    data = Batch(({"x": x, "classes": embeddings},), y, shared=("classes",))
    expected = unit_scores(LayerConductance(ByHand(model, embeddings), model.act), (x, y))
    torch.testing.assert_close(unit_scores(LayerConductance(own, model.act), data, batch_size=3), expected)
    with pytest.warns(UserWarning, match="argument 'classes' of the model looks shared"):
        found = unit_scores(LayerConductance(own, model.act), data._replace(shared=()))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("shared", "named"), [((2,), "2"), (("classes",), "'classes'"), ((-1,), "-1"), ((1.5,), "1.5")]
)
def test_names_that_no_argument_has_are_refused(case, shared, named):
    _, x, embeddings, y = case
    with pytest.raises(ValueError, match=rf"shared names the argument {named}, which batch 0 lacks.*0 to 1, inputs"):
        as_batches(Batch((x, embeddings), y, shared=shared))


def test_the_evaluator_and_our_attributions_take_shared_arguments(case):
    model, x, embeddings, y = case
    hand = ByHand(model, embeddings)
    data = Batch((x, embeddings), y, shared=(1,))

    def methods(net):
        return {
            "activity": LayerMeanActivity(net, model.act),
            "ablation": LayerUnitAblation(net, model.act),
            "conductance": LayerConductance(net, model.act),
            "features": partial(unit_scores, LayerFeatureAblation(net, model.act), perturbations_per_eval=4),
        }

    own = CumulativeAblationEvaluator(model, "act", n_random=2, reference="mean", metric="log_likelihood")
    plain = CumulativeAblationEvaluator(hand, "model.act", n_random=2, reference="mean", metric="log_likelihood")
    expected = plain.compare(methods(hand), (x, y))
    for batch_size in (None, 3):
        found = own.compare(methods(model), data, batch_size=batch_size)
        for name in expected:
            torch.testing.assert_close(found[name].scores, expected[name].scores, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(found[name].values, expected[name].values, rtol=1e-4, atol=1e-5)


class Graph(nn.Module):
    """Nodes are samples: each layer mixes them by the adjacency matrix."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.last = nn.Linear(D, 6), nn.ReLU(), nn.Linear(6, 4)

    def forward(self, x, adjacency):
        return adjacency @ self.last(self.act(adjacency @ self.first(x)))


@pytest.mark.parametrize("as_input", [True, False], ids=["input", "additional"])
def test_a_graph_s_adjacency_is_shared_and_its_nodes_run_together(case, as_input):
    _, x, _, y = case
    model, adjacency = Graph().eval(), torch.softmax(torch.randn(N, N), 1)
    hand = ByHand(model, adjacency)
    data = Batch((x, adjacency), y, shared=(1,)) if as_input else Batch((x,), y, (adjacency,), shared=(1,))
    own = CumulativeAblationEvaluator(model, "act", n_random=2, reference="mean", metric="log_likelihood")
    methods = {"activity": LayerMeanActivity(model, "act"), "gradient": LayerGradientXActivation(model, model.act)}
    found = own.compare(methods, data)
    activation = torch.relu(adjacency @ model.first(x)).detach().double()
    torch.testing.assert_close(found["activity"].scores, activation.mean(0), rtol=1e-5, atol=1e-6)
    expected = unit_scores(LayerGradientXActivation(hand, model.act), (x, y))
    torch.testing.assert_close(found["gradient"].scores, expected)
