"""The user's model, data and random states leave every call as they came, also when the model raises."""

from __future__ import annotations

import random
from collections import deque
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from captum_ablate import (
    LayerClassSelectivity,
    LayerEntropy,
    LayerKLSelectivity,
    LayerLinearProbe,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerSelectivityActivity,
    LayerUnitAblation,
    list_layers,
)
from captum_ablate.inputs.unchanged import unchanged

FACTORIES = [
    LayerMeanActivity,
    LayerClassSelectivity,
    LayerEntropy,
    LayerMutualInformation,
    LayerKLSelectivity,
    LayerSelectivityActivity,
    partial(LayerLinearProbe, C=1.0),
    LayerUnitAblation,
    partial(LayerUnitAblation, reference="mean"),
    partial(LayerUnitAblation, reference="resample"),
]
each = pytest.mark.parametrize("factory", FACTORIES, ids=lambda f: str(getattr(f, "__name__", f)))
pytestmark = pytest.mark.filterwarnings("ignore:.*units have an entropy below:UserWarning")


class Careless(nn.Module):
    """A model that counts its calls, notes its inputs, moves a buffer, and writes into its input."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.norm, self.last = (
            nn.Linear(5, 6),
            nn.ReLU(inplace=True),
            nn.BatchNorm1d(6),
            nn.Linear(6, 3),
        )
        self.register_buffer("steps", torch.zeros(()))
        self.calls, self.seen, self.cache = 0, [], {}

    def forward(self, x):
        self.calls += 1
        self.steps += 1
        self.seen.append(x.shape)
        self.cache["x"] = x
        self.new_attribute = x
        x += 1.0
        return self.last(self.norm(self.act(self.first(x))))


class Fails(Careless):
    """The same, raising in the middle of a forward pass from the second batch on."""

    def forward(self, x):
        outputs = super().forward(x)
        if x[0, 0] > 1e6:
            raise KeyError("the model's own fault")
        return outputs


def state_of(model):
    """Everything of a model that a user could miss, in comparable form."""
    return {
        name: {
            "hooks": [list(getattr(m, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")],
            "training": m.training,
            "attributes": {
                k: (id(v), repr(v)) for k, v in vars(m).items() if k not in ("_parameters", "_buffers", "_modules")
            },
            "buffers": {k: (id(b), b.clone().tolist()) for k, b in m.named_buffers(recurse=False)},
            "parameters": {
                k: (
                    id(p),
                    p.tolist(),
                    p.requires_grad,
                    id(p.grad),
                    None if p.grad is None else p.grad.tolist(),
                )
                for k, p in m.named_parameters(recurse=False)
            },
        }
        for name, m in model.named_modules()
    }


def random_states():
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002  the user's


def careless(cls=Careless):
    model = cls().eval()
    model.last.weight.requires_grad_(False)
    model(torch.randn(4, 5)).sum().backward()
    model.act.register_forward_hook(lambda _, __, output: None)
    return model


@each
def test_a_careless_model_is_as_before(factory):
    model, x, y = careless(), torch.randn(30, 5), torch.arange(30) % 3
    before, states, inputs = state_of(model), random_states(), x.clone()
    for layer in ("first", "act", "norm"):
        factory(model, layer).attribute(x, target=y, batch_size=11)
    assert state_of(model) == before
    assert random_states() == states
    assert torch.equal(x, inputs)
    assert y.tolist() == [0, 1, 2] * 10


@each
def test_a_model_that_raises_is_as_before_and_its_error_is_the_users(factory):
    model, x, y = careless(Fails), torch.randn(30, 5), torch.arange(30) % 3
    x[22] = 1e8
    batches = [(x[i : i + 11].clone(), y[i : i + 11]) for i in (0, 11, 22)]
    before, states = state_of(model), random_states()
    with pytest.raises(KeyError, match="the model's own fault"):
        factory(model, "first").attribute(batches)
    assert state_of(model) == before
    assert random_states() == states
    assert torch.equal(batches[2][0], x[22:])


@each
def test_attributing_to_the_layer_input_leaves_the_model_as_before(factory):
    model, x, y = careless(), torch.randn(30, 5), torch.arange(30) % 3
    before = state_of(model)
    factory(model, "last").attribute(x, target=y, attribute_to_layer_input=True)
    assert state_of(model) == before


@each
def test_gradients_may_be_taken_afterwards(factory):
    model, x, y = careless(), torch.randn(30, 5, requires_grad=True), torch.arange(30) % 3
    with torch.enable_grad():
        factory(model, "act").attribute(x, target=y)
        assert torch.is_grad_enabled()
    assert x.grad is None
    model(x.clone()).sum().backward()
    assert x.grad is not None


@each
def test_a_refused_call_leaves_the_model_as_before(factory):
    model, x, y = careless(), torch.randn(30, 5), torch.arange(30) % 3
    before = state_of(model)
    with pytest.raises(ValueError, match="unit_dim"):
        factory(model, "act", unit_dim=4).attribute(x, target=y)
    x[3] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        factory(model, "act").attribute(x, target=y)
    assert state_of(model) == before


def test_listing_layers_leaves_the_model_as_before():
    model, x = careless(), torch.randn(4, 5)
    before, inputs = state_of(model), x.clone()
    list_layers(model, x)
    assert state_of(model) == before
    assert torch.equal(x, inputs)


def test_a_shuffled_loader_is_read_without_touching_its_random_state():
    model, dataset = careless(), TensorDataset(torch.randn(30, 5), torch.arange(30) % 3)
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(dataset, batch_size=8, shuffle=True, generator=generator)
    before, states = generator.get_state(), random_states()
    LayerMeanActivity(model, "act").attribute(loader)
    LayerMeanActivity(model, "act").attribute(DataLoader(dataset, batch_size=8, shuffle=True))
    assert torch.equal(generator.get_state(), before)
    assert random_states() == states


def test_a_batch_sampler_is_read_without_touching_its_random_state():
    model, dataset = careless(), TensorDataset(torch.randn(30, 5), torch.arange(30) % 3)
    generator = torch.Generator().manual_seed(5)
    sampler = BatchSampler(RandomSampler(dataset, generator=generator), batch_size=8, drop_last=False)
    before = generator.get_state()
    LayerMeanActivity(model, "act").attribute(DataLoader(dataset, batch_sampler=sampler))
    assert torch.equal(generator.get_state(), before)


def test_random_numbers_drawn_by_the_model_are_given_back():
    class Draws(nn.Linear):
        def forward(self, x):
            random.random(), np.random.rand(), torch.rand(3)  # noqa: NPY002  what a careless model does
            return super().forward(x)

    model = nn.Sequential(nn.Linear(5, 4), Draws(4, 3)).eval()
    states = random_states()
    LayerMeanActivity(model, "0").attribute(torch.ones(4, 5), target=[0, 1, 0, 1])
    assert random_states() == states


def test_a_hook_of_the_user_survives_and_its_handle_still_removes_it(dense, dense_data):
    calls = []
    handle = dense[0].register_forward_hook(lambda *_: calls.append(1))
    LayerMeanActivity(dense, "0").attribute(dense_data[0], target=dense_data[1])
    assert len(calls) == 1
    assert len(dense[0]._forward_hooks) == 1
    handle.remove()
    assert len(dense[0]._forward_hooks) == 0


def meddle(model):
    model.train()
    model.first.register_forward_hook(lambda *_: None)
    model.first.register_forward_pre_hook(lambda *_: None)
    model.steps = torch.ones(())
    model.norm.running_mean.add_(1)
    model.first.weight.requires_grad_(False)
    model.first.weight.grad.add_(1)
    model.first.bias.grad = None
    model.last.extra = "left behind"
    model.seen.append("left behind")
    del model.cache
    model.act = nn.Tanh()
    raise ZeroDivisionError


def test_what_a_block_does_to_a_model_is_taken_back():
    model = careless()
    before = state_of(model)
    with pytest.raises(ZeroDivisionError), unchanged(model):
        meddle(model)
    assert state_of(model) == before


def test_a_bound_method_of_a_model_is_guarded_as_the_model():
    model = careless()
    before = state_of(model)
    LayerMeanActivity(model.forward, model.act).attribute(torch.randn(6, 5), target=[0, 1] * 3)
    assert state_of(model) == before


@pytest.mark.parametrize(
    ("state", "change"),
    [
        (lambda: torch.zeros(2), lambda tensor: tensor.add_(1)),
        (lambda: deque([1]), lambda queue: queue.append(2)),
    ],
    ids=["tensor", "deque"],
)
def test_state_held_in_plain_attributes_is_given_back(state, change):
    class Counts(nn.Linear):
        def forward(self, x):
            change(self.state)
            return super().forward(x)

    model = nn.Sequential(nn.Linear(5, 4), Counts(4, 3)).eval()
    model[1].state = state()
    before = repr(model[1].state)
    LayerMeanActivity(model, "0").attribute(torch.ones(4, 5), target=[0, 1, 0, 1])
    assert repr(model[1].state) == before
