"""A per-sample method leaves the model, the data and the random states as they were."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
import torch
from captum.attr import (
    LayerActivation,
    LayerConductance,
    LayerDeepLift,
    LayerGradientShap,
    LayerGradientXActivation,
    LayerLRP,
)
from per_sample_methods import BASELINES, METHODS, close
from torch import nn

from captum_ablate import unit_scores


def state_of(model):
    """All that a method may leave behind: attributes, hooks, weights, gradients, modes, random states."""
    modules = {}
    for name, module in model.named_modules():
        keys = sorted(module.__dict__)
        hooks = {
            key: list(value) for key, value in module.__dict__.items() if "hooks" in key and hasattr(value, "keys")
        }
        modules[name] = (keys, hooks, module.training)
    weights = [(p.detach().clone(), p.requires_grad, p.grad) for p in model.parameters()]
    rng = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    return modules, weights, rng


def assert_same_state(before, after):
    assert before[0] == after[0]
    for (w, grads, grad), (w2, grads2, grad2) in zip(before[1], after[1], strict=True):
        assert torch.equal(w, w2)
        assert grads == grads2
        assert grad is grad2
    assert torch.equal(before[2][0], after[2][0])
    assert before[2][1:] == after[2][1:]


class Brittle(nn.Module):
    """Raises when asked often enough, in the middle of a method."""

    def forward(self, x):
        BUDGET[0] -= 1
        if BUDGET[0] < 0:
            raise RuntimeError("the network is on fire")
        return x * 1.5


BUDGET = [0]
STATEFUL = [*METHODS, LayerGradientShap]


@pytest.mark.parametrize("cls", STATEFUL, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("budget", [10**9, 0, 1, 2, 3])
def test_nothing_is_left_on_the_model_even_when_it_raises_midway(data, cls, budget):
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 6), Brittle(), nn.Linear(6, 3)).eval()
    model[0].bias.grad = torch.full((4,), 3.0)
    model[2].bias.requires_grad_(False)
    x, y = data
    kwargs = {"baselines": BASELINES} if cls is LayerGradientShap else METHODS[cls]
    attribution = cls(model, model[2])
    data_before, before = (x.clone(), y.clone()), state_of(model)
    BUDGET[0] = budget
    with (
        contextlib.suppress(ValueError, RuntimeError)
        if cls is LayerLRP or budget > 3
        else pytest.raises((ValueError, RuntimeError), match="on fire")
    ):
        unit_scores(attribution, (x, y), batch_size=6, **kwargs)
    BUDGET[0] = 10**9
    assert_same_state(before, state_of(model))
    assert torch.equal(model[0].bias.grad, torch.full((4,), 3.0))
    assert torch.equal(x, data_before[0])
    assert torch.equal(y, data_before[1])


@pytest.mark.parametrize("cls", [LayerDeepLift, LayerConductance, LayerGradientXActivation])
def test_a_failed_call_does_not_spoil_the_next(data, cls):
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 6), Brittle(), nn.Linear(6, 3)).eval()
    BUDGET[0] = 10**9
    attribution = cls(model, model[2])
    expected = unit_scores(attribution, data)
    BUDGET[0] = 1
    with pytest.raises((ValueError, RuntimeError), match="on fire"):
        unit_scores(attribution, data, batch_size=3)
    BUDGET[0] = 10**9
    close(unit_scores(attribution, data), expected)


def test_inputs_that_the_model_writes_into_are_copies(data):
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(5, 4), nn.Linear(4, 3)

        def forward(self, x):
            out = self.head(torch.tanh(self.layer(x)))
            with torch.no_grad():
                x.data.add_(1)
            return out

    model, (x, y) = Writes().eval(), data
    before = x.clone()
    unit_scores(LayerActivation(model, model.layer), (x, y))
    assert torch.equal(x, before)


def test_no_graph_and_no_gradients_are_kept(dense, data):
    x = data[0].clone().requires_grad_()
    scores = unit_scores(LayerGradientXActivation(dense, dense[2]), (x, data[1]))
    assert scores.grad_fn is None
    assert x.grad is None
    assert x.requires_grad
    assert all(p.grad is None for p in dense.parameters())
