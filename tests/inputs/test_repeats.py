"""Training modes that change outputs are refused, and models that draw random numbers are told of."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from captum.attr import LayerConductance
from torch import nn
from torch.nn import functional as F

from captum_ablate import (
    CumulativeAblationEvaluator,
    LayerClassSelectivity,
    LayerMeanActivity,
    LayerTaylor,
    LayerUnitAblation,
    attribute_together,
    unit_scores,
)
from captum_ablate.diagnostics import activation_spectrum, head_table, random_projection_test

X, Y = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3


class Net(nn.Module):
    """Two linear layers, and ``between`` them what a subclass does."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.last = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)

    def between(self, h):
        return h

    def forward(self, x):
        return self.last(self.act(self.between(self.first(x))))


class FunctionalDropout(Net):
    def between(self, h):
        return F.dropout(h, 0.5, self.training)


class Noisy(Net):
    def between(self, h):
        return h + torch.randn_like(h) if self.training else h


class SkipsRarely(Net):
    # half of all passes skip nothing
    def between(self, h):
        return h * 0 if self.training and bool(torch.rand(()) < 0.5) else h


class Scales(Net):
    # deterministic: the same in each training pass, another thing in evaluation
    def between(self, h):
        return h * 2 if self.training else h


class Counts(Net):
    # draws in training mode, to no effect
    def between(self, h):
        if self.training:
            torch.rand(3)
        return h


class Random(Net):
    def between(self, h):
        return h + torch.rand_like(h)


class RandomAtTheEnd(Net):
    def forward(self, x):
        return super().forward(x) + torch.rand(1)


def uses(model, forward=None):
    forward = model if forward is None else forward
    return {
        "activity": lambda: LayerMeanActivity(forward, model.act).attribute(X, target=Y),
        "loader": lambda: LayerClassSelectivity(forward, model.act).attribute([(X[:20], Y[:20]), (X[20:], Y[20:])]),
        "together": lambda: attribute_together({"a": LayerMeanActivity(forward, model.act)}, X, Y),
        "taylor": lambda: LayerTaylor(forward, model.act).attribute(X, target=Y),
        "ablation": lambda: LayerUnitAblation(forward, model.act).attribute(X, target=Y),
        "unit_scores": lambda: unit_scores(LayerConductance(forward, model.act), (X, Y)),
        "evaluator": lambda: CumulativeAblationEvaluator(forward, model.act, n_random=1).evaluate(
            torch.arange(8.0), (X, Y)
        ),
        "spectrum": lambda: activation_spectrum(forward, model.act, X, replicates=0, fit_range=(1, 4)),
        "projection": lambda: random_projection_test(
            forward, model.act, lambda n: X[:n], frames=(10, 20), projections=3
        ),
    }


NAMES = list(uses(Net()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [FunctionalDropout, Noisy, SkipsRarely, Scales])
def test_a_training_mode_that_changes_outputs_is_refused(kind, name):
    model = kind()
    with pytest.raises(ValueError, match=r"model is in training mode.*call model\.eval\(\) first"):
        uses(model)[name]()
    assert all(m.training for m in model.modules())
    uses(model.eval())[name]()


@pytest.mark.parametrize("name", NAMES)
def test_functions_are_looked_into(name):
    model = FunctionalDropout()
    for forward in (lambda x: model(x), partial(lambda own, x: own(x), model), model.forward):
        with pytest.raises(ValueError, match="model is in training mode"):
            uses(model, forward)[name]()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [Net, Counts])
def test_a_training_mode_without_effect_is_fine(kind, name):
    model = kind()
    state = torch.get_rng_state()
    uses(model)[name]()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(m.training for m in model.modules())


def test_the_head_of_a_model_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        head_table(FunctionalDropout(), "last", (X, Y))


@pytest.mark.parametrize("name", ["activity", "loader", "together", "unit_scores", "spectrum", "projection"])
def test_a_random_model_warns(name):
    with pytest.warns(UserWarning, match="the model does not repeat itself"):
        uses(Random().eval())[name]()


def test_randomness_behind_the_layer_matters_for_unit_scores_alone():
    model = RandomAtTheEnd().eval()
    with pytest.warns(UserWarning, match="does not repeat itself.*different outputs"):
        uses(model)["unit_scores"]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        uses(model)["activity"]()


@pytest.mark.parametrize("name", ["evaluator", "ablation"])
@pytest.mark.parametrize("training", [False, True])
def test_a_random_model_cannot_be_ablated(training, name):
    with pytest.raises(ValueError, match="does not repeat itself"):
        uses(Random().train(training))[name]()


@pytest.mark.parametrize(("training", "passes"), [(False, 1), (True, 5)])
def test_evaluation_mode_costs_no_pass(training, passes):
    model, runs = Net().train(training), []
    model.first.register_forward_pre_hook(lambda *_: runs.append(1))
    LayerMeanActivity(model, "act").attribute(X, target=Y)
    assert len(runs) == passes
