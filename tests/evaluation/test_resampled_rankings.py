"""Methods ranked again on resamples: the same as ranking on data in which samples are literally repeated."""

from __future__ import annotations

from functools import partial

import oracles
import pytest
import torch
from captum.attr import LayerConductance, LayerGradientShap, LayerGradientXActivation, NoiseTunnel
from torch import nn

from captum_ablate import (
    CumulativeAblationEvaluator,
    LayerActivationNorm,
    LayerClassSelectivity,
    LayerDatasetAttribution,
    LayerEntropy,
    LayerKLSelectivity,
    LayerLinearProbe,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerSelectivityActivity,
    LayerShapleyValue,
    LayerTaylor,
    LayerUnitAblation,
    LayerWeightNorm,
    unit_scores,
)
from captum_ablate.ablation import locate
from captum_ablate.evaluation.joint_ranking import JointRanking
from captum_ablate.inputs.batches import as_batches
from captum_ablate.inputs.resamples import ResampledBatches
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics import unit_statistics
from captum_ablate.statistics.table import ActivationTable

B = 4
N = 45


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


@pytest.fixture(scope="module")
def data(network):
    torch.manual_seed(4)
    x = torch.randn(N, 5)
    with torch.no_grad():
        return x, network(x + 0.3 * torch.randn(N, 5)).argmax(1)


def ranked(network, methods, data, layers="1", *, batch_size=N, resamples=B, references=None):
    """Return the joint ranking of ``methods`` and the weights, ``[n, resamples]`` in the order of the samples."""
    joint = isinstance(layers, list)
    names = layers if joint else [layers]
    modules = [network.get_submodule(name) for name in names]
    plain = as_batches(data, forward_func=network, batch_size=batch_size)
    batches = ResampledBatches(plain, resamples, seed=0)
    located = locate(network, modules, [UnitAxis.of(1, None)] * len(names), [next(iter(plain))])
    references = references or ["zero"] * len(names)
    found = JointRanking.of(methods, network, located, references, batches, seed=0, is_joint=joint)
    list(batches)
    return found, batches.weights


def repeated(data, weights):
    rows = torch.repeat_interleave(weights)
    return data[0][rows], data[1][rows]


METHODS = {
    "activity": LayerMeanActivity,
    "selectivity": LayerClassSelectivity,
    "product": LayerSelectivityActivity,
    "product of information": partial(LayerSelectivityActivity, selectivity=LayerMutualInformation),
    "entropy": LayerEntropy,
    "information": partial(LayerMutualInformation, threshold=0.3),
    "corrected information": partial(LayerMutualInformation, threshold=0.3, bias_correction=True),
    "KL of a threshold for each unit": partial(LayerKLSelectivity, threshold=torch.linspace(0.1, 0.9, 7)),
    "probe": partial(LayerLinearProbe, C=0.5),
    "Taylor": LayerTaylor,
    "weight norm": LayerWeightNorm,
    "activation norm": LayerActivationNorm,
    "unit ablation": LayerUnitAblation,
    "unit ablation, logit": partial(LayerUnitAblation, metric="logit"),
    "Shapley": partial(LayerShapleyValue, permutations=3, metric="margin"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("batch_size", [N, 8])
def test_scores_of_a_resample_are_those_of_repeated_samples(network, data, name, batch_size):
    method = METHODS[name](network, "1")
    found, weights = ranked(network, {name: method}, data, batch_size=batch_size)
    assert found.order_only == {}
    assert found.resampled[name].shape == (B, 7)
    for b in range(B):
        x, y = repeated(data, weights[:, b])
        own = method.attribute(x, target=y)
        tolerance = 1e-3 if name == "probe" else 1e-6
        torch.testing.assert_close(found.resampled[name][b], own.double(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("options", [{}, {"samples": "mean_abs"}, {"target": 1, "positions": "mean"}])
@pytest.mark.parametrize("cls", [LayerConductance, LayerGradientXActivation])
def test_per_sample_scores_of_a_resample_are_those_of_repeated_samples(network, data, cls, options):
    attribution = cls(network, network[1])
    found, weights = ranked(network, {"a": partial(unit_scores, attribution, **options)}, data, batch_size=16)
    for b in range(B):
        own = unit_scores(attribution, repeated(data, weights[:, b]), **options)
        torch.testing.assert_close(found.resampled["a"][b], own.double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("cls", "oracle"),
    [
        (LayerMutualInformation, oracles.mutual_information),
        (LayerEntropy, oracles.entropy),
        (LayerKLSelectivity, oracles.kl_selectivity),
    ],
)
@pytest.mark.parametrize("options", [{"bins": 4}, {"bins": 3, "edges": "mass"}, {"threshold": "median"}])
def test_bin_edges_are_those_of_all_samples(network, data, cls, oracle, options):
    method = cls(network, "0", **options)
    found, weights = ranked(network, {"a": method}, data, "0", batch_size=10)
    values = oracles.layer_values(network, network[0], data[0])
    edges = _edges(values, options)
    for b in range(B):
        rows = torch.repeat_interleave(weights[:, b])
        bins, labels = oracles.quantised(values[rows], edges), data[1][rows].tolist()
        own = oracles.entropy(bins) if oracle is oracles.entropy else oracle(bins, labels)
        torch.testing.assert_close(found.resampled["a"][b], torch.from_numpy(own))


def _edges(values, options):
    if options.get("threshold") == "median":
        return oracles.threshold_edges(oracles.median_threshold(values))
    return (oracles.mass_edges if "edges" in options else oracles.width_edges)(values, options["bins"])


@pytest.mark.parametrize("cls", [LayerMeanActivity, LayerEntropy, partial(LayerMutualInformation, bins=5)])
def test_activations_beyond_the_budget_give_the_same_scores(network, data, cls, monkeypatch):
    own, _ = ranked(network, {"a": cls(network, "0")}, data, "0", batch_size=10)
    monkeypatch.setattr(unit_statistics, "TABLE_BYTES", 500)
    monkeypatch.setattr("captum_ablate.statistics.chunks.CHUNK_VALUES", 60)
    small, _ = ranked(network, {"a": cls(network, "0")}, data, "0", batch_size=10)
    torch.testing.assert_close(own.resampled["a"], small.resampled["a"])


def test_the_strength_of_a_probe_is_that_of_all_samples(network, data):
    chosen, _ = ranked(network, {"a": LayerLinearProbe(network, "1")}, data)
    fixed = LayerLinearProbe(network, "1").held(_table(network, data)).C
    given, _ = ranked(network, {"a": LayerLinearProbe(network, "1", C=fixed)}, data)
    torch.testing.assert_close(chosen.resampled["a"], given.resampled["a"])
    torch.testing.assert_close(chosen.scores["a"], given.scores["a"])


def _table(network, data):
    return ActivationTable(torch.from_numpy(oracles.layer_values(network, network[1], data[0])).double(), data[1])


def test_the_reference_is_that_of_all_samples(network, data):
    method = LayerUnitAblation(network, "1", reference="mean", metric="logit")
    found, weights = ranked(network, {"a": method}, data)
    mean = torch.from_numpy(oracles.layer_values(network, network[1], data[0]).mean(0)).float()
    fixed = LayerUnitAblation(network, "1", reference=mean, metric="logit")
    for b in range(B):
        x, y = repeated(data, weights[:, b])
        torch.testing.assert_close(found.resampled["a"][b], fixed.attribute(x, target=y).double(), rtol=1e-4, atol=1e-5)


def test_scores_of_all_samples_do_not_change(network, data):
    methods = {name: make(network, "1") for name, make in METHODS.items()}
    methods["conductance"] = LayerConductance(network, network[1])
    evaluator = CumulativeAblationEvaluator(network, "1", n_random=0)
    options = {"ranking_data": data, "batch_size": 16}
    plain, again = (evaluator.compare(methods, data, ranking_resamples=k, **options) for k in (0, 3))
    for name in methods:
        torch.testing.assert_close(plain[name].scores, again[name].scores, rtol=1e-9, atol=1e-9)


def test_several_layers_share_the_resamples(network, data):
    layers = ["1", "3"]
    methods = {"activity": LayerMeanActivity(network, layers), "ablation": LayerUnitAblation(network, layers)}
    found, weights = ranked(network, methods, data, layers)
    for name, method in methods.items():
        assert found.resampled[name].shape == (B, 13)
        for b in range(B):
            x, y = repeated(data, weights[:, b])
            own = torch.cat(method.attribute(x, target=y)).double()
            torch.testing.assert_close(found.resampled[name][b], own, rtol=1e-5, atol=1e-6)


class OwnAttribute(LayerUnitAblation):
    def attribute(self, *args, **kwargs):
        return super().attribute(*args, **kwargs)


class FailsOnRepeats(LayerMeanActivity):
    def score(self, moments):
        if int(moments.counts.sum()) != N:
            raise ValueError("too few")
        return moments.mean


def test_methods_that_keep_their_order_are_named_with_the_reason(network, data):
    methods = {
        "given": torch.arange(7.0),
        "function": lambda model, layer, batches: torch.arange(7.0),
        "own attribute": OwnAttribute(network, "1"),
        "fails": FailsOnRepeats(network, "1"),
        "activity": LayerMeanActivity(network, "1"),
    }
    found, _ = ranked(network, methods, data)
    assert found.order_only == {
        "given": "its scores are given",
        "function": "a function is not ranked again",
        "own attribute": "its class has an attribute of its own",
        "fails": "a resample cannot be scored: too few",
    }
    assert list(found.resampled) == ["activity"]


def test_of_several_layers_one_given_order_keeps_the_whole(network, data):
    mixed = [torch.arange(7.0), LayerMeanActivity(network, "3")]
    found, _ = ranked(network, {"mixed": mixed}, data, ["1", "3"])
    assert found.order_only == {"mixed": "its scores are given"}


def test_random_attributions_keep_their_draws(network, data):
    shap = partial(unit_scores, LayerGradientShap(network, network[1]), baselines=data[0][:5])
    tunnel = NoiseTunnel(LayerGradientXActivation(network, network[1]))
    found, _ = ranked(network, {"shap": shap, "tunnel": tunnel}, data)
    assert set(found.resampled) == {"shap", "tunnel"}
    again, _ = ranked(network, {"shap": shap, "tunnel": tunnel}, data)
    for name in found.resampled:
        assert torch.equal(found.resampled[name], again.resampled[name])
        close = torch.corrcoef(torch.stack([found.scores[name], found.resampled[name].mean(0)]))[0, 1]
        assert close > 0.9  # the same scores of each sample, weighted


def test_a_class_that_a_resample_lacks_is_dropped(network):
    torch.manual_seed(0)
    x, y = torch.randn(24, 5), torch.tensor([0] * 11 + [1] * 12 + [2])
    methods = {"s": LayerClassSelectivity(network, "1"), "i": LayerMutualInformation(network, "1", threshold=0.2)}
    found, weights = ranked(network, methods, (x, y), resamples=12)
    lacking = [b for b in range(12) if int(weights[-1, b]) == 0]
    assert lacking
    for name, method in methods.items():
        for b in lacking:
            own_x, own_y = repeated((x, y), weights[:, b])
            assert len(own_y.unique()) == 2
            torch.testing.assert_close(found.resampled[name][b], method.attribute(own_x, target=own_y))


def test_resamples_without_two_classes_are_drawn_again_for_every_kind_of_method(network):
    torch.manual_seed(0)
    x, y = torch.randn(20, 5), (torch.arange(20) == 3).long()
    methods = {
        "s": LayerClassSelectivity(network, "1"),
        "a": LayerGradientXActivation(network, network[1]),
        "u": LayerUnitAblation(network, "1", metric="logit"),
    }
    for names in (["s", "a", "u"], ["u"], ["a"]):
        found, weights = ranked(network, {name: methods[name] for name in names}, (x, y), resamples=10, batch_size=6)
        assert bool((weights[3] > 0).all())
        for name in names:
            for b in range(10):
                own_x, own_y = repeated((x, y), weights[:, b])
                if name == "a":
                    own = unit_scores(methods[name], (own_x, own_y)).double()
                else:
                    own = methods[name].attribute(own_x, target=own_y).double()
                torch.testing.assert_close(found.resampled[name][b], own, rtol=1e-4, atol=1e-5)


def test_a_generator_ranks_on_resamples_if_none_is_drawn_again(network, data):
    def stream():
        return iter([(data[0][:20], data[1][:20]), (data[0][20:], data[1][20:])])

    evaluator = CumulativeAblationEvaluator(network, "1", n_random=0)
    found = evaluator.compare({"a": LayerMeanActivity(network, "1")}, data, ranking_data=stream(), ranking_resamples=3)
    assert len(found["a"].resampled_areas) == 3


class SquaredGradients(LayerDatasetAttribution):
    """A gradient method that compares classes."""

    source = "gradients"

    def score(self, moments):
        return (moments.means**2).sum(0)


def test_gradients_by_class_are_resampled_by_class(network, data):
    method = SquaredGradients(network, "1")
    found, weights = ranked(network, {"g": method}, data, batch_size=11)
    for b in range(B):
        x, y = repeated(data, weights[:, b])
        torch.testing.assert_close(
            found.resampled["g"][b], method.attribute(x, target=y).double(), rtol=1e-4, atol=1e-7
        )
