"""What can be ranked: scores and attributions of every kind, and what is said of those that cannot."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import LayerActivation, LayerConductance, LayerGradCam, LayerGradientShap, LayerLRP
from curve_checks import SCORES, close, name_of, same
from torch import nn

from captum_ablate import (
    CumulativeAblationEvaluator,
    LayerClassSelectivity,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerUnitAblation,
    unit_scores,
)


@pytest.mark.parametrize(
    "given_scores",
    [
        SCORES,
        SCORES.double(),
        SCORES.half(),
        SCORES.tolist(),
        SCORES.numpy(),
        SCORES[None],
        SCORES[:, None],
        SCORES.clone().requires_grad_(),
        (SCORES * 10).int(),
    ],
    ids=lambda s: f"{type(s).__name__}-{getattr(s, 'dtype', '')}-{tuple(getattr(s, 'shape', [6]))}",
)
def test_scores_come_as_tensors_lists_or_arrays(dense, dense_data, given_scores):
    curve = CumulativeAblationEvaluator(dense, "2", n_random=2).evaluate(given_scores, dense_data)
    same(curve, CumulativeAblationEvaluator(dense, "2", n_random=2).evaluate(SCORES, dense_data))
    assert not curve.scores.requires_grad


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (torch.randn(5), r"one value for each of the 6 units of '2'; got shape \(5,\)"),
        (torch.randn(2, 3), r"one value for each of the 6 units of '2'; got shape \(2, 3\)"),
        (torch.tensor(1.0), r"one value for each of the 6 units of '2'; got shape \(\)"),
        ([], r"one value for each of the 6 units of '2'; got shape \(0,\)"),
        (torch.tensor([1.0, 2, float("nan"), 4, 5, 6]), "scores must be finite; unit 2 has nan"),
        (torch.tensor([1.0, 2, 3, float("inf"), 5, -float("inf")]), r"unit 3 has inf \(2 such units\)"),
    ],
    ids=name_of,
)
def test_scores_of_the_wrong_length_or_not_finite_are_refused(dense, dense_data, scores, message):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    with pytest.raises(ValueError, match=message):
        evaluator.evaluate(scores, dense_data)
    comparison = evaluator.compare({"bad": scores, "good": SCORES}, dense_data)
    assert list(comparison.curves) == ["good"]
    with pytest.raises(KeyError, match=r"'bad' is not applicable"):
        comparison["bad"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: "conductance", r"a method must be a Captum layer attribution.*got str"),
        (
            lambda m: LayerConductance,
            r"LayerConductance is a class; pass an attribution: LayerConductance\(model, layer\)",
        ),
        (lambda m: LayerConductance(m, m[0]), r"belongs to another layer, '0', not to '2'"),
        (lambda m: LayerMeanActivity(m, "4"), r"belongs to another layer, '4', not to '2'"),
        (lambda m: LayerMeanActivity(m, ["2", "0"]), r"a list of layers; the evaluator ablates one layer"),
        (lambda m: LayerActivation(m, [m[2], m[0]]), r"a list of layers; the evaluator ablates one layer"),
        (lambda m: LayerMeanActivity(m, "2", unit_dim=None), r"unit_dim=None and the evaluator unit_dim=1"),
        (lambda m: LayerMeanActivity(m, "2", layer_mask=torch.tensor([0, 0, 1, 1, 2, 2])), r"layer_mask"),
        (lambda m: LayerGradientShap(m, m[2]), r"LayerGradientShap needs baselines"),
        (lambda m: partial(LayerConductance(m, m[2]).attribute, n_steps=3), r"partial\(unit_scores, attribution"),
        (
            lambda m: partial(unit_scores, LayerConductance(m, m[2]), unit_dim=-1),
            r"unit_dim of unit_scores is the evaluator's",
        ),
        (lambda m: partial(unit_scores, LayerConductance(m, m[2]), n_step=3), r"no argument 'n_step'"),
        (lambda m: torch.ones(6, dtype=torch.complex64), r"scores must be real numbers"),
        (lambda m: None, r"a method must be a Captum layer attribution.*got NoneType"),
    ],
)
def test_what_cannot_be_ranked_is_reported_while_the_others_go_on(dense, dense_data, make, message):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    comparison = evaluator.compare({"bad": make(dense), "good": SCORES}, dense_data)
    assert list(comparison.curves) == ["good"]
    assert list(comparison.failed) == ["bad"]
    with pytest.raises(ValueError, match=message):
        evaluator.evaluate(make(dense), dense_data)
    with pytest.raises(ValueError, match=message):
        raise ValueError(comparison.failed["bad"])


def test_methods_that_fail_midway_are_reported_and_leave_nothing(dense, dense_data):
    class LayerBroken(LayerActivation):
        def attribute(self, inputs, target=None):
            self.layer.register_forward_hook(lambda *_: None)
            self.layer.mess = 1
            raise RuntimeError("no luck\nwith this one")

    relu = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    evaluator = CumulativeAblationEvaluator(relu, "1", n_random=0)
    comparison = evaluator.compare(
        {
            "LRP": LayerLRP(relu, relu[1]),
            "activation": LayerActivation(relu, relu[1]),
            "broken": LayerBroken(relu, relu[1]),
            "activity": LayerMeanActivity(relu, "1"),
        },
        dense_data,
    )
    assert list(comparison.curves) == ["activation", "activity"]
    assert list(comparison.failed) == ["LRP", "broken"]
    assert "no rule for ReLU" in comparison.failed["LRP"]
    assert "name a Linear or Conv layer" in comparison.failed["LRP"]
    assert "no luck" in comparison.failed["broken"]
    assert "\n" not in comparison.failed["broken"]
    assert not relu[1]._forward_hooks
    assert not hasattr(relu[1], "mess")


def test_if_nothing_is_applicable_all_reasons_are_given(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    with pytest.raises(ValueError, match=r"^no attribution is applicable: ") as caught:
        evaluator.compare({"a": torch.randn(4), "b": LayerConductance(dense, dense[0])}, dense_data)
    assert "a: scores must have one value for each of the 6 units" in str(caught.value)
    assert "b: the attribution belongs to another layer" in str(caught.value)


def test_attributions_must_be_named(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2")
    for wrong in ([SCORES], {}, SCORES):
        with pytest.raises(TypeError, match="attributions must be a mapping of at least one name"):
            evaluator.compare(wrong, dense_data)


def test_the_scores_of_each_kind_are_those_made_outside(dense, dense_data):
    rank = (torch.randn(40, 5), torch.arange(40) % 3)
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    conductance = LayerConductance(dense, dense[2])
    ours = [LayerMeanActivity, LayerClassSelectivity, partial(LayerMutualInformation, bins=4), LayerUnitAblation]
    comparison = evaluator.compare(
        {
            "conductance": conductance,
            "absolute": partial(unit_scores, conductance, samples="mean_abs", n_steps=9),
            **{str(k): make(dense, "2") for k, make in enumerate(ours)},
        },
        dense_data,
        ranking_data=rank,
        batch_size=9,
    )
    close(comparison["conductance"].scores, unit_scores(conductance, rank))
    close(comparison["absolute"].scores, unit_scores(conductance, rank, samples="mean_abs", n_steps=9))
    for k, make in enumerate(ours):
        close(comparison[str(k)].scores, make(dense, "2").attribute(rank[0], target=rank[1]))


def test_another_method_in_the_comparison_changes_nothing(dense, dense_data):
    rank = (torch.randn(40, 5), torch.arange(40) % 3)
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=2, metric="logit", reference="mean", steps=2)
    methods = {
        "activity": LayerMeanActivity(dense, "2"),
        "conductance": LayerConductance(dense, dense[2]),
        "ablation": LayerUnitAblation(dense, "2"),
        "mine": SCORES,
        "broken": LayerGradCam(dense, dense[0]),
    }
    together = evaluator.compare(methods, dense_data, ranking_data=rank)
    for name in together.curves:
        same(together[name], evaluator.evaluate(methods[name], dense_data, ranking_data=rank))
    backwards = evaluator.compare(dict(reversed(methods.items())), dense_data, ranking_data=rank)
    for name in together.curves:
        same(together[name], backwards[name])


@pytest.mark.parametrize("others", [1, 2])
def test_a_random_attribution_is_the_same_whatever_else_is_compared(dense, dense_data, others):
    method = partial(unit_scores, LayerGradientShap(dense, dense[2]), baselines=torch.randn(1, 5), stdevs=0.5)
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  Captum draws from it
    alone = evaluator.evaluate(method, dense_data)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    together = evaluator.compare({**{str(k): method for k in range(others)}, "mine": method}, dense_data)
    assert torch.equal(together["mine"].scores, alone.scores)


def test_random_attributions_follow_the_seed(dense, dense_data):
    method = partial(unit_scores, LayerGradientShap(dense, dense[2]), baselines=torch.randn(6, 5), stdevs=0.5)

    def scores(seed):
        return CumulativeAblationEvaluator(dense, "2", n_random=0, seed=seed).evaluate(method, dense_data).scores

    first = scores(3)
    assert torch.equal(scores(3), first)
    assert not torch.equal(scores(4), first)


def test_the_users_own_random_states_have_no_say(dense, dense_data):
    method = partial(unit_scores, LayerGradientShap(dense, dense[2]), baselines=torch.randn(6, 5), stdevs=0.5)
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    first = evaluator.evaluate(method, dense_data).scores
    torch.randn(5)
    assert torch.equal(evaluator.evaluate(method, dense_data).scores, first)
    random.random()
    np.random.rand(3)  # noqa: NPY002  Captum draws from it
    assert torch.equal(evaluator.evaluate(method, dense_data).scores, first)
