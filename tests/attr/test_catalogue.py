"""The methods that commands know by name: each ranks the units of a real layer, and none of ours is forgotten."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from captum_ablate import CumulativeAblationEvaluator, attr, unit_scores
from captum_ablate.attr.catalogue import CATALOGUE, Target, find


@pytest.fixture
def target(digits_net, small_digits):
    return Target(digits_net, digits_net.fc1, baselines=small_digits[0][:5], seed=3)


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_each_method_ranks_the_units_of_a_layer(entry, target, small_digits):
    if entry.name == "LRP":  # Captum has no rule for a flattening module
        dense = nn.Sequential(*list(target.model)[-3:]).eval()
        scores = unit_scores(entry.make(Target(dense, dense[0])), (torch.rand(9, 64), torch.arange(9)))
        assert scores.shape == (24,)
        return
    data = tuple(part[:90] for part in small_digits)
    evaluator = CumulativeAblationEvaluator(target.model, target.layer, n_random=2, steps=2)
    if entry.name == "Shapley value":
        evaluator.compare({"x": torch.rand(24)}, data)  # the method alone takes seconds: that it is made is enough
        assert entry.make(target).permutations == 100
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum's LRP warns that it asks for gradients
        comparison = evaluator.compare({entry.name: entry.make(target)}, data, ranking_data=data)
    assert comparison[entry.name].scores.shape == (24,)


def test_names_differ_and_all_of_our_attributions_are_there(target):
    names = [entry.name for entry in CATALOGUE]
    assert len({name.lower() for name in names}) == len(names)
    made = {type(entry.make(target)).__name__ for entry in CATALOGUE}
    ours = {name for name in attr.__all__ if name.startswith("Layer")} - {"LayerDatasetAttribution"}
    assert ours <= made


def test_the_default_set_has_ours_captums_and_a_random_ranking():
    names = {entry.name for entry in CATALOGUE if entry.is_default}
    assert {"mutual information", "unit ablation", "conductance", "random ranking"} <= names
    assert not names & {"Shapley value", "feature ablation"}  # hours on a wide layer


def test_methods_that_ablate_take_reference_and_metric_of_the_evaluator(digits_net):
    at = Target(digits_net, digits_net.fc1, unit_dim=-1, reference="mean", metric="margin")
    for name in ("unit ablation", "Shapley value"):
        made = find(name).make(at)
        assert (made.reference, made.metric, made.axis.unit_dim) == ("mean", "margin", -1)
    by_accuracy = Target(digits_net, digits_net.fc1)
    assert find("unit ablation").make(by_accuracy).metric == "log_likelihood"
    assert find("Shapley value").make(by_accuracy).metric == "accuracy"


def test_a_random_ranking_depends_on_the_seed_alone(digits_net, small_digits):
    first, again, other = (
        find("random ranking").make(Target(digits_net, digits_net.fc1, seed=seed)).attribute(
            small_digits[0], target=small_digits[1]
        )
        for seed in (0, 0, 1)
    )  # fmt: skip
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("text", ["KL selectivity", "kl-selectivity", "KL_Selectivity", " kl  selectivity "])
def test_dashes_and_capitals_do_not_matter(text):
    assert find(text).name == "KL selectivity"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conductanc", "there is no method 'conductanc'; nearest: conductance"),
        ("information", "nearest: .*mutual information"),
        ("xyz", "there is no method 'xyz'; there are mean activity, "),
    ],
)
def test_a_wrong_name_gets_the_nearest(text, message):
    with pytest.raises(ValueError, match=message):
        find(text)


def test_token_layers_are_ranked_along_their_last_axis():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Flatten(), nn.Linear(18, 2)).eval()
    data = torch.randn(20, 3, 4), torch.arange(20) % 2
    at = Target(model, model[1], unit_dim=-1)
    evaluator = CumulativeAblationEvaluator(model, "1", unit_dim=-1, n_random=2, steps=3)
    found = evaluator.compare({name: find(name).make(at) for name in ("entropy", "conductance", "taylor")}, data)
    assert not found.failed
    assert all(len(found[name].scores) == 6 for name in found)
