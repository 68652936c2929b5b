"""Models, layers, labels and data that cannot be scored are refused, and the error says what to do."""

from __future__ import annotations

import pytest
import torch
from captum_networks import (
    BasicModelWithReusedModules,
)
from every_attribution import CLASSES, FACTORIES, close, each
from torch import nn

from captum_ablate import (
    LayerActivationNorm,
    LayerEntropy,
    LayerMeanActivity,
    LayerSelectivityActivity,
    LayerShapleyValue,
    LayerTaylor,
    LayerUnitAblation,
    LayerWeightNorm,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*units have an entropy below:UserWarning")


class Dropout(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3))


class Norm(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


class Dictionary(nn.Module):
    """A layer with a dict for an output."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 3)

    def forward(self, x):
        return {"hidden": self.linear(x)}


class Absolute(nn.Module):
    def forward(self, x):
        return x.abs()


class AroundDictionary(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.unused = Dictionary(), nn.Linear(5, 3)

    def forward(self, x):
        return self.inner(x)["hidden"]


@each
@pytest.mark.parametrize("make", [Dropout, Norm])
def test_a_model_in_training_mode_is_refused(dense_data, factory, make):
    x, y = dense_data
    model = make().train()
    with pytest.raises(ValueError, match=r"training mode: (Dropout|BatchNorm1d) '1'.*model\.eval\(\)"):
        factory(model, "0").attribute(x, target=y)
    assert factory(model.eval(), "0").attribute(x, target=y).shape == (4,)


def test_a_training_mode_without_effect_is_fine(dense, dense_data):
    x, y = dense_data
    scores = LayerMeanActivity(dense.train(), "0").attribute(x, target=y)
    assert dense.training
    close(LayerMeanActivity(dense.eval(), "0").attribute(x, target=y), scores)


@each
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, r"target is missing: pass target=, the class of each sample"),
        (1, r"must hold the class of each sample, \[n\]; got the single number 1"),
        (torch.tensor(1), r"must hold the class of each sample, \[n\]; got the single number 1"),
        (
            torch.rand(60, 3),
            r"one integer class per sample.*torch.float32 \(60, 3\).*Soft labels, multi-label",
        ),
        (torch.zeros(60, 3, dtype=torch.long), r"one integer class per sample.*torch.int64 \(60, 3\)"),
        (torch.zeros(60), r"one integer class per sample.*torch.float32 \(60,\)"),
        (torch.arange(59), r"59 labels for inputs of shape \(60, 5\)"),
    ],
    ids=[
        "none",
        "int",
        "scalar",
        "soft",
        "multi-label",
        "float",
        "short",
    ],
)
def test_labels_that_are_no_classes_are_refused(dense, dense_data, factory, target, message):
    with pytest.raises(ValueError, match=message):
        factory(dense, "0").attribute(dense_data[0], target=target)


@each
@pytest.mark.parametrize("label", [0, 2])
def test_one_class_is_refused_where_classes_are_compared(dense, dense_data, factory, label):
    x, _ = dense_data
    attribution = factory(dense, "0")
    if attribution.needs_two_classes:
        with pytest.raises(ValueError, match=rf"one class only \(label {label}\).*two or more"):
            attribution.attribute(x, target=[label] * 60)
    else:
        assert attribution.attribute(x, target=[label] * 60).shape == (7,)


def test_what_does_not_compare_classes_scores_one_class_alone(dense, dense_data):
    fine = [cls for cls, f in zip(CLASSES, FACTORIES, strict=True) if not f(dense, "0").needs_two_classes]
    others = [LayerShapleyValue, LayerWeightNorm, LayerActivationNorm, LayerTaylor]
    assert fine == [LayerMeanActivity, LayerEntropy, LayerUnitAblation, *others]
    product = LayerSelectivityActivity(dense, "0", selectivity=LayerEntropy)
    assert not product.needs_two_classes
    close(
        product.attribute(dense_data[0], target=[1] * 60),
        LayerEntropy(dense, "0").attribute(dense_data[0], target=[1] * 60)
        * LayerMeanActivity(nn.Sequential(dense[0], Absolute()).eval(), "1").attribute(dense_data[0], target=[1] * 60),
    )


def test_labels_that_are_no_numbers_are_refused(dense, dense_data):
    with pytest.raises(TypeError, match="must be integers"):
        LayerMeanActivity(dense, "0").attribute(dense_data[0], target=["cat"] * 60)


@pytest.mark.parametrize("factory", [f for f in FACTORIES if f not in (LayerUnitAblation, LayerWeightNorm)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_activations_that_are_not_finite_are_refused_with_unit_and_batch(dense, dense_data, factory, bad):
    x, y = dense_data
    with torch.no_grad():
        dense[0].weight.zero_()
        dense[0].weight[4, 2] = 1
    x[33, 2] = bad
    x[:, [0, 1, 3, 4]] = 0
    model = nn.Sequential(nn.Identity(), dense).eval()
    with pytest.raises(ValueError, match=r"layer '0' has NaN or infinite activations in batch 3, unit 2;"):
        factory(model, "0").attribute(x, target=y, batch_size=10)


def test_unit_ablation_refuses_activations_that_are_not_finite(dense, dense_data):
    x, y = dense_data
    x[33, 2] = float("nan")
    with pytest.raises(ValueError, match=r"layer .0. has NaN or infinite activations in batch \d+, unit"):
        LayerUnitAblation(dense, "0").attribute(x, target=y, batch_size=10)


@each
def test_an_empty_data_set_is_refused(dense, factory):
    for data in ([], [(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long))]):
        with pytest.raises(ValueError, match="data set is empty"):
            factory(dense, "0").attribute(data)
    with pytest.raises(ValueError, match="data set is empty"):
        factory(dense, "0").attribute(torch.zeros(0, 5), target=torch.zeros(0, dtype=torch.long))


@each
def test_a_layer_that_is_not_in_the_model_is_refused(dense, factory):
    with pytest.raises(
        ValueError, match=r"Linear is not a module of the model; layers of that type in it: '0', '2', '4'"
    ):
        factory(dense, nn.Linear(5, 7))


@each
def test_an_unknown_layer_name_is_refused_with_the_nearest(digits_net, factory):
    with pytest.raises(ValueError, match=r"no layer 'conv3'; nearest: .*'conv[12]'"):
        factory(digits_net, "conv3")


@each
def test_a_layer_that_does_not_run_is_refused(dense_data, factory):
    model = AroundDictionary().eval()
    with pytest.raises(ValueError, match=r"layer 'unused' did not run in the forward pass"):
        factory(model, "unused").attribute(dense_data[0], target=dense_data[1])


@each
def test_a_layer_that_runs_twice_is_refused_with_what_to_name_instead(factory):
    model = BasicModelWithReusedModules().eval()
    message = r"layer 'relu' runs 2 times in one forward pass.*such as .*'lin1'"
    with pytest.raises(ValueError, match=message):
        factory(model, "relu").attribute(torch.randn(10, 3), target=torch.arange(10) % 2)


@each
def test_a_layer_with_a_dict_for_an_output_is_refused(dense_data, factory):
    model = AroundDictionary().eval()
    with pytest.raises(ValueError, match=r"layer 'inner' returns dict.*name a layer inside it"):
        factory(model, "inner").attribute(dense_data[0], target=dense_data[1])
    assert factory(model, "inner.linear").attribute(dense_data[0], target=dense_data[1]).shape == (3,)


@each
def test_a_bad_unit_dim_is_refused(digits_net, small_digits, factory):
    with pytest.raises(ValueError, match="unit_dim=0 is the axis of the samples"):
        factory(digits_net, "fc1", unit_dim=0)
    with pytest.raises(TypeError, match=r"unit_dim must be an int or None.*got '1'"):
        factory(digits_net, "fc1", unit_dim="1")
    x, y = small_digits
    for unit_dim in (2, -2, 9):
        with pytest.raises(ValueError, match=rf"unit_dim={unit_dim} is no unit axis of a layer output of shape"):
            factory(digits_net, "fc1", unit_dim=unit_dim).attribute(x, target=y)


def test_units_that_change_in_number_between_batches_are_refused_in_words():
    model = nn.Sequential(nn.Identity(), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.LazyLinear(2)).eval()
    model(torch.zeros(1, 3, 5))
    batches = [(torch.randn(4, 3, length), torch.arange(4) % 2) for length in (5, 8)]
    with pytest.raises(ValueError, match="units"):
        LayerMeanActivity(model, "0", unit_dim=2).attribute(batches)
