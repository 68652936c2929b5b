"""Any form of data, of inputs and of units gives the same scores of a per-sample method."""

from __future__ import annotations

import numpy as np
import torch
from captum.attr import (
    LayerActivation,
    LayerConductance,
    LayerFeatureAblation,
    LayerGradientXActivation,
)
from captum_networks import BasicModel_MultiLayer, BasicModel_MultiLayer_MultiInput
from hypothesis import given, settings
from hypothesis import strategies as st
from per_sample_methods import by_sample, close, loop_mean
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_ablate import Batch, unit_scores


@given(n=st.integers(1, 12), split=st.lists(st.integers(1, 5), min_size=1, max_size=12), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_uneven_batches_are_averaged_by_sample_count(n, split, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).eval()
    x, y = torch.randn(n, 4), torch.randint(3, (n,))
    sizes, left = [], n
    for size in split:
        sizes.append(min(size, left))
        left -= sizes[-1]
    sizes.append(left)
    parts = zip(x.split(sizes), y.split(sizes), strict=True)  # empty batches at the end too
    attribution = LayerGradientXActivation(model, model[1])
    expected = loop_mean(by_sample(attribution, x, y))
    close(unit_scores(attribution, parts), expected)
    close(unit_scores(attribution, (x, y), batch_size=split[0]), expected)


@given(
    shape=st.lists(st.integers(1, 4), min_size=0, max_size=3),
    dim=st.integers(0, 3),
    negative=st.booleans(),
    absolute=st.booleans(),
)
@settings(deadline=None, max_examples=30)
def test_units_may_lie_along_any_axis(shape, dim, negative, absolute):
    class Shaped(nn.Module):
        def forward(self, x):
            return x * 1.0

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Shaped()

        def forward(self, x):
            return self.layer(x).flatten(1).square().sum(1, keepdim=True).expand(-1, 2)

    shape = [3, *shape]
    axis = 1 + dim % len(shape)
    x = torch.randn(5, *shape, generator=torch.Generator().manual_seed(sum(shape)))
    model = Model().eval()
    rows = by_sample(LayerActivation(model, model.layer), x, unit_dim=axis)
    expected = loop_mean(np.abs(rows) if absolute else rows)
    scores = unit_scores(
        LayerActivation(model, model.layer),
        (x, torch.zeros(5, dtype=torch.long)),
        unit_dim=axis - 1 - len(shape) if negative else axis,
        samples="mean_abs" if absolute else "mean",
    )
    close(scores, expected)


def test_every_element_and_groups_of_indices_can_be_units(digits_net, image_data):
    attribution = LayerGradientXActivation(digits_net, digits_net.conv2)
    values = attribution.attribute(image_data[0], target=image_data[1]).detach().double()
    close(unit_scores(attribution, image_data, unit_dim=None), values.flatten(1).mean(0))
    groups = torch.tensor([0, 1] * 8)
    expected = [float(values[:, groups == g].sum((1, 2, 3)).mean()) for g in (0, 1)]
    close(unit_scores(attribution, image_data, layer_mask=groups), expected, atol=1e-5)


def test_a_layer_of_tokens_has_its_units_on_the_last_axis():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Linear(3, 5), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(torch.relu(self.embed(x)).mean(1))

    model, x, y = Tokens().eval(), torch.randn(6, 4, 3), torch.arange(6) % 2
    for cls in (LayerActivation, LayerConductance, LayerGradientXActivation, LayerFeatureAblation):
        attribution = cls(model, model.embed)
        own = {"layer_mask": torch.arange(5).reshape(1, 1, 5)} if cls is LayerFeatureAblation else {}
        rows = by_sample(attribution, x, None if cls is LayerActivation else y, unit_dim=-1, **own)
        scores = unit_scores(attribution, (x, y), unit_dim=-1)
        assert scores.shape == (5,)
        close(scores, loop_mean(rows))


def test_a_layer_with_a_tuple_of_tensors_gives_a_tuple_of_scores():
    class Two(nn.Module):
        def forward(self, x):
            return x[:, :2] * 2, x[:, 2:] ** 2

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.two, self.head = Two(), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(torch.cat(self.two(x), dim=1))

    model, x, y = Model().eval(), torch.randn(6, 5), torch.arange(6) % 2
    first, second = unit_scores(LayerActivation(model, model.two), (x, y), batch_size=4)
    close(first, (x[:, :2] * 2).mean(0))
    close(second, (x[:, 2:] ** 2).mean(0))
    first, second = unit_scores(LayerGradientXActivation(model, model.two), (x, y), batch_size=4)
    weight = model.head.weight[y].detach()
    close(first, (weight[:, :2] * x[:, :2] * 2).mean(0))
    close(second, (weight[:, 2:] * x[:, 2:] ** 2).mean(0))


def test_several_inputs_and_additional_arguments_reach_the_model():
    model = BasicModel_MultiLayer_MultiInput().eval()
    parts, y = tuple(torch.randn(10, 3) for _ in range(3)), torch.arange(10) % 2
    attribution = LayerConductance(model, model.model.linear1)
    expected = attribution.attribute(parts, target=y, additional_forward_args=(4,)).detach().double().mean(0)
    batches = [Batch(tuple(p[i : i + 4] for p in parts), y[i : i + 4], (4,)) for i in range(0, 10, 4)]
    close(unit_scores(attribution, batches), expected, atol=1e-4)
    close(unit_scores(attribution, Batch(parts, y, (4,)), batch_size=3), expected, atol=1e-4)


def test_additional_arguments_can_be_given_by_name_as_in_captum():
    model = BasicModel_MultiLayer_MultiInput().eval()
    parts, y = tuple(torch.randn(10, 3) for _ in range(3)), torch.arange(10) % 2
    attribution = LayerConductance(model, model.model.linear1)
    expected = attribution.attribute(parts, target=y, additional_forward_args=(4,)).detach().double().mean(0)
    close(unit_scores(attribution, (parts, y), additional_forward_args=(4,), batch_size=3), expected, atol=1e-4)


def test_additional_tensors_with_one_entry_per_sample_are_split_along():
    model = BasicModel_MultiLayer().eval()
    x, extra, y = torch.randn(11, 3), torch.randn(11, 3), torch.arange(11) % 2
    attribution = LayerGradientXActivation(model, model.linear1)
    expected = attribution.attribute(x + extra, target=y).detach().mean(0)
    close(unit_scores(attribution, Batch((x,), y, (extra, False)), batch_size=4), expected)


def test_additional_tensors_go_along_where_feature_ablation_takes_one_class_at_a_time():
    model = BasicModel_MultiLayer().eval()
    x, extra, y = torch.randn(11, 3), torch.randn(11, 3), torch.arange(11) % 2
    wide = LayerFeatureAblation(model, model.linear1)
    expected = unit_scores(wide, (x + extra, y))
    found = unit_scores(wide, Batch((x,), y, (extra, False)), batch_size=4, perturbations_per_eval=2)
    close(found, expected, atol=1e-5)


def test_all_forms_of_data_give_the_same_scores(dense, dense_data):
    x, y = dense_data
    attribution = LayerConductance(dense, dense[2])
    scores = unit_scores(attribution, (x, y))
    dicts = [{"x": a, "y": b} for a, b in zip(x.split(25), y.split(25), strict=True)]
    dataset = TensorDataset(x, y)
    for data in (
        dataset,
        DataLoader(dataset, batch_size=16, shuffle=True),
        DataLoader(dataset, batch_size=16)._get_iterator(),
        (x, y.tolist()),
        (x, y.numpy()),
        (x, y[:, None].int()),
        [(a, b) for a, b in zip(x.split(25), y.split(25), strict=True)][::-1],
        ((a, b) for a, b in zip(x.split(7), y.split(7), strict=True)),
    ):
        close(unit_scores(attribution, data), scores)
    close(unit_scores(attribution, dicts, unpack_batch=lambda d: ((d["x"],), d["y"])), scores)
