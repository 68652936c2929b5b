"""What every attribution over a labelled data set promises, whatever its score."""

from __future__ import annotations

import inspect
from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution, LayerGradientXActivation
from captum_networks import (
    BasicModel_MultiLayer,
    BasicModel_MultiLayer_MultiInput,
)
from every_attribution import CLASSES, FACTORIES, FEW, OWN_OPTIONS, close, each, each_class
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import captum_ablate
from captum_ablate import (
    Batch,
    LayerActivationNorm,
    LayerDatasetAttribution,
    LayerEntropy,
    LayerKLSelectivity,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerShapleyValue,
    LayerTaylor,
    LayerUnitAblation,
    LayerWeightNorm,
)

ON_INDICES = (LayerUnitAblation, LayerShapleyValue, LayerActivationNorm, LayerTaylor)
"""Attributions that act on the indices of a group, not on their mean."""

pytestmark = pytest.mark.filterwarnings("ignore:.*units have an entropy below:UserWarning")


def test_the_exported_attributions_are_those_tested_here():
    exported = {getattr(captum_ablate.attr, n) for n in captum_ablate.attr.__all__ if n != "attribute_together"}
    assert exported == {*CLASSES, LayerDatasetAttribution}
    assert all(getattr(captum_ablate, cls.__name__) is cls for cls in exported)


@each_class
def test_the_signatures_are_those_of_a_captum_layer_attribution(cls):
    assert issubclass(cls, LayerDatasetAttribution)
    assert issubclass(cls, LayerAttribution)
    constructor = inspect.signature(cls).parameters
    assert list(constructor)[:3] == ["forward_func", "layer", "device_ids"]
    keyword_only = {name for name, p in constructor.items() if p.kind is p.KEYWORD_ONLY}
    assert keyword_only == {"unit_dim", "layer_mask", *OWN_OPTIONS[cls]}
    attribute = inspect.signature(cls.attribute).parameters
    assert list(attribute)[1:5] == ["inputs", "target", "additional_forward_args", "attribute_to_layer_input"]
    assert all(p.kind is p.KEYWORD_ONLY for p in list(attribute.values())[5:])


def test_one_loop_serves_captum_and_us(digits_net, small_digits):
    x, y = small_digits
    for cls in (LayerGradientXActivation, *CLASSES):
        scores = cls(digits_net, digits_net.relu3).attribute(x, target=y)
        assert scores.shape == ((90, 24) if cls is LayerGradientXActivation else (24,))
        assert torch.isfinite(scores).all()


@each
def test_scores_are_detached_float64_on_the_device_of_the_model(dense, dense_data, factory):
    scores = factory(dense, "2").attribute(dense_data[0], target=dense_data[1])
    assert (scores.dtype, scores.shape, scores.requires_grad) == (torch.float64, (6,), False)
    assert scores.device == next(dense.parameters()).device


def test_names_read_as_words():
    assert LayerKLSelectivity.get_name() == "Layer KL Selectivity"
    assert LayerMutualInformation.get_name() == "Layer Mutual Information"
    assert LayerUnitAblation(nn.Linear(2, 2), "").get_name() == "Layer Unit Ablation"


@each_class
def test_no_attribution_has_a_convergence_delta_or_multiplies_by_inputs(cls):
    attribution = cls(nn.Sequential(nn.Linear(2, 2)), "0")
    assert not attribution.has_convergence_delta()
    assert not attribution.multiplies_by_inputs


@each
def test_all_forms_of_data_give_the_same_scores(dense, dense_data, factory):
    x, y = dense_data
    attribution = factory(dense, "2")
    scores = attribution.attribute(x, target=y)
    dataset = TensorDataset(x, y)
    batches = list(zip(x.split(25), y.split(25), strict=True))
    dicts = [{"features": a, "label": b} for a, b in batches]
    close(attribution.attribute(dataset), scores)
    close(attribution.attribute(DataLoader(dataset, batch_size=16, shuffle=True)), scores)
    close(attribution.attribute(batches[::-1]), scores)
    close(attribution.attribute(dicts, unpack_batch=lambda d: Batch((d["features"],), d["label"])), scores)


@each
def test_batch_sizes_do_not_matter(dense, dense_data, factory):
    x, y = dense_data
    attribution = factory(dense, "3")
    scores = attribution.attribute(x, target=y)
    for batch_size in (1, 24, 59, 60, 1000):
        close(attribution.attribute(x, target=y, batch_size=batch_size), scores)


@each
def test_the_order_of_samples_does_not_matter(dense, dense_data, factory):
    x, y = dense_data
    order = torch.randperm(len(x))
    attribution = factory(dense, "0")
    close(attribution.attribute(x[order], target=y[order]), attribution.attribute(x, target=y))


@each
def test_permuted_units_have_permuted_scores(dense, dense_data, factory):
    if factory is FEW:  # its random orders go by the number of a unit; a value that settles with permutations is exact
        factory = partial(LayerShapleyValue, metric="logit", permutations=1)
        dense = nn.Sequential(dense[0], dense[1], nn.Linear(7, 3)).eval()  # where units add up, one is enough
    x, y = dense_data
    scores = factory(dense, "1").attribute(x, target=y)
    order = torch.randperm(7)
    with torch.no_grad():
        dense[0].weight[:] = dense[0].weight[order]
        dense[0].bias[:] = dense[0].bias[order]
        dense[2].weight[:] = dense[2].weight[:, order]
    permuted = factory(dense, "1").attribute(x, target=y)
    torch.testing.assert_close(permuted, scores[order], rtol=1e-3, atol=1e-5)
    assert len(set(scores.round(decimals=6).tolist())) > 1


@each
def test_other_names_of_the_classes_give_the_same_scores(factory):
    # the hidden layer alone decides; the outputs are wide enough for the ablation to find each label
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 251)).eval()
    with torch.no_grad():
        model[2].weight[[3, 17, 250]] = model[2].weight[[0, 1, 2]]
        model[2].bias[[3, 17, 250]] = model[2].bias[[0, 1, 2]]
    x, y = torch.randn(30, 5), torch.arange(30) % 3
    attribution = factory(model, "1")
    close(attribution.attribute(x, target=torch.tensor([3, 17, 250])[y]), attribution.attribute(x, target=y))


@each
def test_several_inputs_and_additional_arguments_reach_the_model(factory):
    model = BasicModel_MultiLayer_MultiInput().eval()
    parts = tuple(torch.randn(24, 3) for _ in range(3))
    y = torch.arange(24) % 2
    scores = factory(model, "model.linear1").attribute(parts, target=y, additional_forward_args=4, batch_size=9)
    inner = factory(model.model, "linear1").attribute(4 * sum(parts), target=y)
    close(scores, inner)
    batches = [Batch(tuple(p[i : i + 8] for p in parts), y[i : i + 8], (4,)) for i in range(0, 24, 8)]
    close(factory(model, "model.linear1").attribute(batches), inner)


@each
def test_additional_tensors_with_one_entry_per_sample_are_split_along(factory):
    model = BasicModel_MultiLayer().eval()
    x, extra, y = torch.randn(24, 3), torch.randn(24, 3), torch.arange(24) % 2
    scores = factory(model, "linear1").attribute(x, target=y, additional_forward_args=(extra, False), batch_size=7)
    close(scores, factory(model, "linear1").attribute(x + extra, target=y))


@pytest.mark.parametrize(
    "factory", [f for f in FACTORIES if f not in (LayerEntropy, LayerWeightNorm)]
)  # they have none
def test_scores_per_class_have_one_row_per_class(dense, dense_data, factory):
    x, y = dense_data
    assert factory(dense, "0").attribute(x, target=y, per_class=True).shape == (3, 7)


@each
def test_keepdim_broadcasts_for_every_attribution(digits_net, small_digits, factory):
    x, y = small_digits
    scores = factory(digits_net, "conv2").attribute(x, target=y)
    kept = factory(digits_net, "conv2").attribute(x, target=y, keepdim=True)
    assert kept.shape == (1, 16, 1, 1)
    close(kept.flatten(), scores)


@each
def test_a_layer_list_gives_the_scores_of_each_layer(dense, dense_data, factory):
    x, y = dense_data
    together = factory(dense, ["2", "0"]).attribute(x, target=y)
    for scores, layer in zip(together, ["2", "0"], strict=True):
        close(scores, factory(dense, layer).attribute(x, target=y))


@pytest.mark.parametrize("factory", [f for f in FACTORIES if f not in ON_INDICES])
def test_the_scores_of_groups_equal_those_of_a_layer_that_joins_them(factory):
    class Mean(nn.Module):
        def forward(self, x):
            return torch.stack([x[:, [0, 2]].mean(1), x[:, [1, 3]].mean(1)], dim=1)

    x, y = torch.randn(40, 5), torch.arange(40) % 2
    model = nn.Sequential(nn.Linear(5, 4), Mean(), nn.Linear(2, 2)).eval()
    grouped = factory(model, "0", layer_mask=torch.tensor([0, 1, 0, 1])).attribute(x, target=y)
    close(grouped, factory(model, "1").attribute(x, target=y))


@each
def test_attributing_twice_gives_the_same_and_keeps_nothing_of_the_data(dense, dense_data, factory):
    attribution = factory(dense, "2")
    before = dict(vars(attribution))
    first = attribution.attribute(dense_data[0], target=dense_data[1])
    attribution.attribute(dense_data[0] * 3, target=dense_data[1])
    torch.testing.assert_close(attribution.attribute(dense_data[0], target=dense_data[1]), first, rtol=1e-6, atol=1e-8)
    assert vars(attribution).keys() == before.keys()
    assert all(vars(attribution)[name] is value for name, value in before.items())


def test_a_new_attribution_is_one_method(dense, dense_data):
    class LayerMeanRange(LayerDatasetAttribution):
        def score(self, moments):
            return moments.means.amax(0) - moments.means.amin(0)

    x, y = dense_data
    scores = LayerMeanRange(dense, "0").attribute(x, target=y)
    means = LayerMeanActivity(dense, "0").attribute(x, target=y, per_class=True)
    close(scores, means.amax(0) - means.amin(0), atol=1e-12)
    with pytest.raises(ValueError, match="Layer Mean Range has no score per class"):
        LayerMeanRange(dense, "0").attribute(x, target=y, per_class=True)


def test_progress_is_shown_only_on_request(dense, dense_data, capsys):
    LayerMeanActivity(dense, "0").attribute(dense_data[0], target=dense_data[1])
    assert capsys.readouterr().err == ""
    LayerMeanActivity(dense, "0").attribute(dense_data[0], target=dense_data[1], batch_size=20, show_progress=True)
    assert "Layer Mean Activity: 100%" in capsys.readouterr().err


def test_labels_of_all_integer_types_are_the_same(dense, dense_data):
    x, y = dense_data
    attribution = LayerMeanActivity(dense, "0")
    expected = attribution.attribute(x, target=y, per_class=True)
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16):
        torch.testing.assert_close(attribution.attribute(x, target=y.to(dtype), per_class=True), expected)
    for dtype in (np.uint8, np.int32, np.uint16, np.uint32, np.uint64):
        labels = y.numpy().astype(dtype)
        torch.testing.assert_close(attribution.attribute(x, target=labels, per_class=True), expected)
