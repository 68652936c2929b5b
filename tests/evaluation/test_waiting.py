"""What a user sees who waits for a ranking: progress within a batch of a slow method, and the time told beforehand."""

from __future__ import annotations

import re
from contextlib import contextmanager
from functools import partial, wraps

import pytest
import torch
from captum.attr import LayerConductance, LayerGradientXActivation
from torch import nn

from captum_ablate import (
    CumulativeAblationEvaluator,
    LayerEntropy,
    LayerLinearProbe,
    LayerShapleyValue,
    LayerUnitAblation,
    unit_scores,
)
from captum_ablate.evaluation import ranking
from captum_ablate.evaluation.ranking_time import FEW, few_of, without_ablation
from captum_ablate.inputs.batch import Batch


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


@pytest.fixture
def data():
    return torch.randn(150, 5), torch.arange(150) % 3


def counts(err, name):
    """The numbers of samples that the bars of this name showed, in their order."""
    return [int(n) for n in re.findall(rf"{re.escape(name)}:[^\r]*?\| (\d+)/150 \[", err)]


def test_the_ranking_and_each_method_with_passes_of_its_own_has_a_bar(model, data, capsys):
    methods = {"entropy": LayerEntropy(model, "1"), "Shapley": LayerShapleyValue(model, "1", permutations=2)}
    evaluator = CumulativeAblationEvaluator(model, "1", n_random=2)
    evaluator.compare(methods, data, ranking_data=data, show_progress=True)
    err = capsys.readouterr().err
    for name in ("ranking 1", "Layer Shapley Value of 1", "ablating 1"):
        assert counts(err, name)[-1] == 150


def test_progress_shows_within_a_batch_and_within_the_methods(model, data, monkeypatch):
    ticks = []

    @contextmanager
    def recorded(name, show, samples=None):
        assert (name, show, samples) == ("ranking 1", True, 150)
        yield ticks.append

    monkeypatch.setattr(ranking, "ticking", recorded)
    methods = {
        "conductance": LayerConductance(model, model[1]),
        "gradients": partial(unit_scores, LayerGradientXActivation(model, model[1])),
        "entropy": LayerEntropy(model, "1"),
    }
    evaluator = CumulativeAblationEvaluator(model, "1", n_random=2)
    evaluator.compare(methods, data, ranking_data=data, batch_size=150, show_progress=True)
    assert ticks[:6] == [
        32.0,
        32.0,
        11.0,
        32.0,
        32.0,
        11.0,
    ]  # half of each piece of at most 64, for each of two methods
    assert sum(ticks) == pytest.approx(150)


def test_a_method_that_fails_leaves_the_bar_complete(model, data, capsys):
    def broken(self, *_, **__):
        raise RuntimeError("no")

    bad = LayerConductance(model, model[1])
    bad.attribute = broken
    methods = {"bad": bad, "good": LayerGradientXActivation(model, model[1])}
    found = CumulativeAblationEvaluator(model, "1", n_random=2).compare(methods, data, show_progress=True)
    assert set(found.failed) == {"bad"}
    assert counts(capsys.readouterr().err, "ranking 1")[-1] == 150


def test_without_progress_nothing_is_shown(model, data, capsys):
    methods = {"a": LayerGradientXActivation(model, model[1]), "b": LayerUnitAblation(model, "1")}
    CumulativeAblationEvaluator(model, "1", n_random=2).compare(methods, data)
    assert capsys.readouterr().err == ""


def test_progress_and_estimate_change_no_result(model, data):
    methods = {"conductance": LayerConductance(model, model[1]), "ablation": LayerUnitAblation(model, "1")}
    evaluator = CumulativeAblationEvaluator(model, "1", n_random=2)
    plain = evaluator.compare(methods, data)
    evaluator.estimate(methods, data)
    shown = evaluator.compare(methods, data, show_progress=True)
    for name in methods:
        assert torch.equal(plain[name].scores, shown[name].scores)
        assert torch.equal(plain[name].values, shown[name].values)


def test_an_estimate_ranks_a_few_samples_and_ablates_by_few_masks(model, data, monkeypatch):
    seen, masks = [], []
    inner = LayerGradientXActivation.attribute

    @wraps(inner)
    def noted(self, inputs, *args, **kwargs):
        seen.append(len(inputs))
        return inner(self, inputs, *args, **kwargs)

    monkeypatch.setattr(LayerGradientXActivation, "attribute", noted)
    monkeypatch.setattr(LayerShapleyValue, "losses", lambda *_: masks.append(1))
    methods = {"gradients": LayerGradientXActivation(model, model[1]), "Shapley": LayerShapleyValue(model, "1")}
    found = CumulativeAblationEvaluator(model, "1", n_random=2).estimate(methods, data, batch_size=50)
    assert sum(seen) == FEW
    assert not masks
    assert set(found.method_seconds) == {"gradients", "Shapley"}
    assert min(found.method_seconds.values()) > 0
    assert found.ranking_seconds >= sum(found.method_seconds.values()) * 0.99


def test_an_estimate_of_a_method_that_needs_more_samples_takes_the_whole_batch(model):
    labels = torch.arange(150) % 3
    data = torch.randn(150, 5), torch.where(torch.arange(150) == 1, 3, labels * 0)  # one sample of a second class
    data[1][2] = 3
    evaluator = CumulativeAblationEvaluator(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)).eval(), "1")
    probe = LayerLinearProbe(evaluator.forward_func, "1")
    assert evaluator.estimate({"probe": probe}, data).method_seconds["probe"] > 0


def test_few_samples_are_spread_over_the_batch():
    batch = Batch((torch.arange(160.0)[:, None],), torch.arange(160) // 80)
    few = few_of(batch)
    assert len(few.target) == FEW
    assert few.target.bincount().tolist() == [FEW // 2, FEW // 2]
    small = Batch((torch.zeros(3, 1),), torch.zeros(3, dtype=torch.int64))
    assert few_of(small) is small
    whole = Batch(([torch.zeros(2)] * 40,), torch.zeros(40, dtype=torch.int64))
    assert few_of(whole) is whole


def test_methods_that_ablate_are_timed_apart_unless_they_have_an_attribute_of_their_own(model):
    class Own(LayerUnitAblation):
        def attribute(self, *args, **kwargs):
            return super().attribute(*args, **kwargs)

    methods = {"own": Own(model, "1"), "ours": LayerUnitAblation(model, "1"), "given": torch.rand(8)}
    quick, measured = without_ablation(methods, 8)
    assert set(measured) == {"ours"}
    assert quick["ours"].tolist() == [0.0] * 8
    assert quick["own"] is methods["own"]
