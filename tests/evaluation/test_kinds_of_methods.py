"""Methods of every kind: wrappers of Captum's, functions of the user's, and options that all methods share."""

from __future__ import annotations

from functools import partial

import captum.attr
import numpy as np
import pytest
import torch
from captum.attr import (
    LayerActivation,
    LayerConductance,
    LayerDeepLift,
    LayerFeatureAblation,
    LayerGradientShap,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    NoiseTunnel,
    Saliency,
)
from torch import nn

from captum_ablate import Batch, CumulativeAblationEvaluator, LayerMeanActivity, unit_scores


def evaluator(model, layer="2", **options):
    return CumulativeAblationEvaluator(model, layer, n_random=0, steps=2, **options)


def seeded(run, seed=5):
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  Captum draws from it
    return run()


def close(one, other):
    torch.testing.assert_close(torch.as_tensor(one).double(), torch.as_tensor(other).double(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "cls", [LayerGradientXActivation, LayerConductance, LayerIntegratedGradients, LayerDeepLift, LayerActivation]
)
@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_unit_scores_of_a_noise_tunnel_are_those_of_the_call_by_hand(dense, dense_data, cls, nt_type):
    x, y = dense_data[0][:20], dense_data[1][:20]
    options = {"nt_type": nt_type, "nt_samples": 4, "stdevs": 0.3}
    tunnel = NoiseTunnel(cls(dense, dense[2]))
    own = {} if cls is LayerActivation else {"target": y}
    by_hand = seeded(lambda: tunnel.attribute(x, **own, **options)).detach().double().mean(0)
    close(seeded(lambda: unit_scores(tunnel, (x, y), **options)), by_hand)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in dense.modules())


def test_a_noise_tunnel_is_compared_with_its_options(dense, dense_data):
    tunnel = NoiseTunnel(LayerGradientXActivation(dense, dense[2]))
    plain = evaluator(dense).compare({"nt": tunnel, "7": partial(unit_scores, tunnel, nt_samples=7)}, dense_data)
    assert list(plain.curves) == ["nt", "7"]
    alone = evaluator(dense).evaluate(partial(unit_scores, tunnel, nt_samples=7), dense_data)
    assert torch.equal(plain["7"].scores, alone.scores)
    assert not torch.equal(plain["7"].scores, plain["nt"].scores)
    assert evaluator(dense).evaluate(tunnel, dense_data).scores.shape == (6,)


def test_a_noise_tunnel_keeps_arguments_apart(dense, dense_data):
    tunnel = NoiseTunnel(LayerConductance(dense, dense[2]))
    with pytest.raises(TypeError, match=r"NoiseTunnel\(LayerConductance\).attribute has no argument 'n_step'"):
        unit_scores(tunnel, dense_data, n_step=3)
    shap = NoiseTunnel(LayerGradientShap(dense, dense[2]))
    with pytest.raises(ValueError, match="needs baselines"):
        unit_scores(shap, dense_data)
    x, y = dense_data
    options = {"baselines": x[:7], "nt_samples": 2, "n_samples": 3, "draw_baseline_from_distrib": True}
    by_hand = seeded(lambda: shap.attribute(x, target=y, **options)).detach().double().mean(0)
    close(seeded(lambda: unit_scores(shap, dense_data, **options)), by_hand)


def test_a_noise_tunnel_of_several_layers(dense, dense_data):
    tunnel = NoiseTunnel(LayerGradientXActivation(dense, [dense[0], dense[2]]))
    comparison = evaluator(dense, ["0", "2"]).compare({"nt": tunnel}, dense_data)
    assert comparison["nt"].scores.shape == (13,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: NoiseTunnel(Saliency(m)), r"NoiseTunnel\(Saliency\) attributes inputs, not a layer; take a layer"),
        (lambda m: Saliency(m), r"Saliency attributes inputs, not a layer; take a layer attribution"),
        (lambda m: captum.attr.DeepLift(m), r"DeepLift attributes inputs, not a layer; take Captum's LayerDeepLift"),
        (lambda m: NoiseTunnel(LayerConductance(m, m[0])), r"belongs to another layer, '0', not to '2'"),
        (lambda m: NoiseTunnel(LayerMeanActivity(m, "2")), r"wraps a score over a whole data set"),
    ],
)
def test_what_wraps_no_attribution_of_the_layer_is_not_applicable(dense, dense_data, make, message):
    comparison = evaluator(dense).compare({"bad": make(dense), "good": torch.rand(6)}, dense_data)
    with pytest.raises(ValueError, match=message):
        raise ValueError(comparison.failed["bad"])
    if "another layer" not in message:
        with pytest.raises(TypeError, match=r"is not an attribution of one layer|wraps a score"):
            unit_scores(make(dense), dense_data)


def mean_activation(model, layer, data, power=1):
    """What a user may write: a loop over batches and a hook."""
    sums, n = 0, 0
    for batch in data:
        kept = []
        handle = layer.register_forward_hook(lambda _, __, output, kept=kept: kept.append(output.detach()))
        model(*batch.inputs, *batch.additional_forward_args)
        handle.remove()
        sums, n = sums + (kept[0] ** power).double().sum(0), n + len(batch.target)
    return sums / n


class Mean:
    """An object that is called like a function."""

    def __call__(self, model, layer, data):
        return mean_activation(model, layer, data)


@pytest.mark.parametrize(
    "function",
    [
        mean_activation,
        lambda model, layer, data: mean_activation(model, layer, data),
        Mean(),
        partial(mean_activation, power=1),
        partial(partial(mean_activation), power=1),
        lambda model, layer, data: mean_activation(model, layer, data).numpy(),
        lambda model, layer, data: mean_activation(model, layer, data).tolist(),
        lambda model, layer, data: [mean_activation(model, layer, data) for _ in range(2)][1].requires_grad_(),
    ],
)
def test_a_function_ranks_from_the_ranking_batches(dense, dense_data, function):
    rank = (torch.randn(40, 5), torch.arange(40) % 3)
    methods = {"mine": function, "ours": LayerMeanActivity(dense, "2")}
    comparison = evaluator(dense).compare(methods, dense_data, ranking_data=rank, batch_size=9)
    close(comparison["mine"].scores, comparison["ours"].scores)
    assert evaluator(dense).evaluate(function, dense_data).scores.shape == (6,)
    assert list(comparison.curves) == ["mine", "ours"]


def test_a_function_gets_model_layer_and_batches_that_it_may_iterate_twice(dense, dense_data):
    seen = {}

    def look(forward_func, layer, data):
        seen.update(model=forward_func, layer=layer, first=list(data), second=list(data), length=len(data))
        return torch.arange(6)

    loader = [(dense_data[0][:30], dense_data[1][:30]), (dense_data[0][30:], dense_data[1][30:])]
    evaluator(dense).compare({"look": look}, loader)
    assert seen["model"] is dense
    assert seen["layer"] is dense[2]
    assert seen["length"] == len(seen["first"]) == len(seen["second"]) == 2
    assert all(isinstance(batch, Batch) for batch in seen["first"])
    assert torch.equal(torch.cat([batch.inputs[0] for batch in seen["second"]]), dense_data[0])


def test_what_a_function_does_to_model_and_data_is_taken_back(dense, dense_data):
    before, x = {name: p.clone() for name, p in dense.state_dict().items()}, dense_data[0].clone()

    def rude(forward_func, layer, data):
        layer.register_forward_hook(lambda _, __, output: output * 0)
        layer.mess = 1
        torch.manual_seed(9)
        for batch in data:
            batch.inputs[0].zero_()
            batch.target.zero_()
        return torch.rand(6)

    torch.manual_seed(3)
    first = torch.rand(1)
    torch.manual_seed(3)
    comparison = evaluator(dense).compare({"rude": rude, "ours": LayerMeanActivity(dense, "2")}, dense_data)
    assert torch.equal(torch.rand(1), first)
    close(comparison["ours"].scores, LayerMeanActivity(dense, "2").attribute(x, target=dense_data[1]))
    assert torch.equal(dense_data[0], x)
    assert not dense[2]._forward_hooks
    assert not hasattr(dense[2], "mess")
    assert all(torch.equal(p, before[name]) for name, p in dense.state_dict().items())


def test_a_random_function_follows_the_seed_alone(dense, dense_data):
    def scores(seed, others=()):
        methods = {str(k): method for k, method in enumerate(others)}
        methods["mine"] = lambda *_: torch.rand(6) + torch.from_numpy(np.random.rand(6))  # noqa: NPY002  a user may draw from it
        return evaluator(dense, seed=seed).compare(methods, dense_data)["mine"].scores

    assert torch.equal(scores(1), scores(1, [LayerMeanActivity(dense, "2"), lambda *_: torch.rand(6)]))
    assert not torch.equal(scores(1), scores(2))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda model: torch.rand(6),
            r"raised TypeError: .*argument.*; it is called as f\(forward_func, layer, data\)$",
        ),
        (lambda model, layer, data: torch.rand("6"), r"the function raised TypeError: [^;]*$"),
        (lambda model, layer, data: {}["key"], r"the function raised KeyError: 'key'"),
        (lambda model, layer, data: None, r"must return a Tensor \[units\].*got NoneType"),
        (lambda model, layer, data: torch.rand(5), r"one value for each of the 6 units of '2'; got shape \(5,\)"),
        (lambda model, layer, data: torch.full((6,), torch.nan), r"scores must be finite"),
        (lambda model, layer, data: torch.rand(6) > 0, r"scores must be real numbers"),
    ],
)
def test_errors_of_a_function_are_reasons(dense, dense_data, function, message):
    comparison = evaluator(dense).compare({"bad": function, "good": torch.rand(6)}, dense_data)
    assert list(comparison.curves) == ["good"]
    with pytest.raises(ValueError, match=message):
        raise ValueError(comparison.failed["bad"])


def test_a_function_needs_data_that_can_be_iterated_again(dense, dense_data):
    batches = (pair for pair in [dense_data])
    with pytest.raises(ValueError, match=r"one-shot generator.*'mine' makes passes of its own"):
        evaluator(dense).compare({"mine": mean_activation}, dense_data, ranking_data=batches)


def test_a_function_ranks_several_layers_one_after_the_other(dense, dense_data):
    comparison = evaluator(dense, ["0", "2"]).compare(
        {"mine": mean_activation, "ours": LayerMeanActivity(dense, ["0", "2"])}, dense_data
    )
    close(comparison["mine"].scores, comparison["ours"].scores)


def unpack(item):
    return Batch((item["x"],), item["y"])


def other_unpack(item):
    return Batch((item["x"] * 2,), item["y"])


def test_options_of_the_call_may_be_repeated_in_a_partial(dense, dense_data):
    x, y = dense_data
    data = [{"x": a, "y": b} for a, b in zip(x.split(20), y.split(20), strict=True)]
    conductance = LayerConductance(dense, dense[2])
    same = partial(unit_scores, conductance, unpack_batch=unpack, unit_dim=1, show_progress=False, n_steps=5)
    other = partial(unit_scores, conductance, unpack_batch=other_unpack)
    compared = evaluator(dense).compare({"same": same, "other": other}, data, unpack_batch=unpack)
    close(compared["same"].scores, unit_scores(conductance, data, unpack_batch=unpack, n_steps=5))
    assert "unpack_batch of unit_scores is the call's here" in compared.failed["other"]
    assert "one pass over the same batches" in compared.failed["other"]
    evaluator(dense).estimate({"same": same}, data, unpack_batch=unpack)
    sized = {k: partial(unit_scores, conductance, batch_size=k) for k in (7, 8)}
    compared = evaluator(dense).compare({str(k): method for k, method in sized.items()}, dense_data, batch_size=7)
    assert list(compared.curves) == ["7"]
    assert "this one is 8, and the call has 7; pass batch_size= to compare" in compared.failed["8"]


def test_options_of_the_evaluator_may_be_repeated_in_a_partial(dense, dense_data):
    mask = torch.tensor([0, 0, 1, 1, 2, 2])
    grouped = evaluator(dense, layer_mask=mask)
    conductance = LayerConductance(dense, dense[2])
    methods = {
        "same": partial(unit_scores, conductance, layer_mask=mask.clone()),
        "none": partial(unit_scores, conductance, layer_mask=None),
        "per class": partial(unit_scores, conductance, per_class=True),
        "tokens": partial(unit_scores, conductance, unit_dim=-1),
    }
    compared = grouped.compare(methods, dense_data)
    assert list(compared.curves) == ["same"]
    assert "layer_mask of unit_scores is the evaluator's here" in compared.failed["none"]
    assert "one score for each unit" in compared.failed["per class"]
    assert "this one is -1, and the evaluator has 1" in compared.failed["tokens"]


def test_feature_ablation_in_a_tunnel_has_units_for_features(digits_net, small_digits):
    x, y = small_digits[0][:6], small_digits[1][:6]
    tunnel = NoiseTunnel(LayerFeatureAblation(digits_net, digits_net.conv2))
    mask = torch.arange(16).reshape(1, 16, 1, 1)
    by_hand = seeded(lambda: tunnel.attribute(x, target=y, layer_mask=mask, nt_samples=2)).double().sum((2, 3)).mean(0)
    close(seeded(lambda: unit_scores(tunnel, (x, y), nt_samples=2)), by_hand)
    assert isinstance(digits_net, nn.Module)


class Neighbours:
    """Values beside the samples that nobody can cut."""

    def __init__(self, values):
        self.values = values


class WithNeighbours(nn.Module):
    def __init__(self, net, size=None):
        super().__init__()
        self.net, self.size = net, size

    def forward(self, x, beside=None):
        if self.size is not None:
            x = x.view(self.size, 5)
        return self.net(x if beside is None else x + beside.values)


@pytest.mark.may_fall_back
@pytest.mark.filterwarnings("ignore:.*full forward passes are used instead:UserWarning")
@pytest.mark.parametrize("kind", ["cannot be cut", "one size of batch"])
def test_large_batches_that_run_whole_are_ranked_whole(dense, kind):
    x, y = torch.randn(200, 5), torch.arange(200) % 3
    if kind == "cannot be cut":
        model, data = (
            WithNeighbours(dense).eval(),
            [Batch((a,), b, (Neighbours(0 * a),)) for a, b in zip(x.split(100), y.split(100), strict=True)],
        )
    else:
        model, data = WithNeighbours(dense, 100).eval(), list(zip(x.split(100), y.split(100), strict=True))
    method = LayerGradientXActivation(model, model.net[1])
    evaluator = CumulativeAblationEvaluator(model, "net.1", n_random=2)
    plain = unit_scores(LayerGradientXActivation(dense, dense[1]), (x, y))
    for resamples in (0, 3):
        found = evaluator.compare({"a": method}, data, ranking_resamples=resamples)
        torch.testing.assert_close(found["a"].scores, plain)
        assert len(found["a"].resampled_areas) == resamples
    assert evaluator.estimate({"a": method}, data).seconds > 0
