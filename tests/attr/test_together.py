"""Several attributions in one pass give what each gives alone."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerActivation
from torch import nn

from captum_ablate import (
    LayerClassSelectivity,
    LayerEntropy,
    LayerKLSelectivity,
    LayerLinearProbe,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerSelectivityActivity,
    LayerUnitAblation,
    attribute_together,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*units have an entropy below:UserWarning")


def statistics(model, layers):
    return {
        "activity": LayerMeanActivity(model, layers),
        "selectivity": LayerClassSelectivity(model, layers),
        "entropy": LayerEntropy(model, layers, threshold="median"),
        "information": LayerMutualInformation(model, layers),
        "KL": LayerKLSelectivity(model, layers, bins=5),
        "product": LayerSelectivityActivity(model, layers, selectivity=LayerMutualInformation),
    }


def same(one, other):
    """Equal, through lists and tuples; counts exactly and sums to rounding."""
    if isinstance(one, (list, tuple)):
        assert type(one) is type(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    else:
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.fixture
def passes(digits_net):
    """A list that grows by one with each forward pass of the digits net."""
    seen = []
    handle = digits_net.register_forward_hook(lambda *_: seen.append(1))
    yield seen
    handle.remove()


def test_all_statistics_of_several_layers_are_those_of_each_alone_in_one_pass(digits_net, small_digits, passes):
    x, y = small_digits
    found = statistics(digits_net, ["relu2", "fc1"]) | {
        "elements": LayerMeanActivity(digits_net, "relu2", unit_dim=None),
        "pairs": LayerClassSelectivity(digits_net, "relu3", layer_mask=torch.arange(24) // 2),
        "probe": LayerLinearProbe(digits_net, "relu3", C=1.0),
    }
    together = attribute_together(found, x, y, batch_size=40)
    assert len(passes) == 3
    assert list(together) == list(found)
    for name, attribution in found.items():
        same(together[name], attribution.attribute(x, target=y, batch_size=40))


@pytest.mark.parametrize("options", [{"per_class": True}, {"keepdim": True}, {"attribute_to_layer_input": True}])
def test_options_of_attribute_mean_the_same_for_all(digits_net, small_digits, options):
    x, y = small_digits
    found = {"activity": LayerMeanActivity(digits_net, "relu2"), "KL": LayerKLSelectivity(digits_net, ["conv2", "fc1"])}
    together = attribute_together(found, [(x, y)], **options)
    for name, attribution in found.items():
        same(together[name], attribution.attribute([(x, y)], **options))


def test_a_layer_with_several_tensors_gives_a_tuple():
    class Two(nn.Module):
        def forward(self, x):
            return x[:, :2], 2 * x

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.two = Two()

        def forward(self, x):
            a, b = self.two(x)
            return a + b[:, :2]

    net, x, y = Net().eval(), torch.randn(20, 3), torch.arange(20) % 2
    scores = attribute_together({"a": LayerMeanActivity(net, "two"), "b": LayerEntropy(net, "two")}, x, y)
    same(scores["a"], (x[:, :2].double().mean(0), 2 * x.double().mean(0)))
    assert [part.shape for part in scores["b"]] == [(2,), (3,)]


def test_unit_ablation_comes_along_in_passes_of_its_own(dense, dense_data):
    x, y = dense_data
    found = {"ablation": LayerUnitAblation(dense, "1"), "activity": LayerMeanActivity(dense, "1")}
    together = attribute_together(found, x, y)
    assert list(together) == ["ablation", "activity"]
    for name, attribution in found.items():
        same(together[name], attribution.attribute(x, target=y))
    with pytest.raises(ValueError, match="'ablation' makes passes of its own"):
        attribute_together(found, iter([(x, y)]))


def test_a_generator_is_enough_for_statistics(dense, dense_data):
    x, y = dense_data
    found = statistics(dense, ["1", "3"])
    streamed = attribute_together(found, (pair for pair in zip(x.split(7), y.split(7), strict=True)))
    same(streamed["information"], attribute_together(found, x, y)["information"])


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ([], TypeError, "a mapping of at least one name"),
        ({}, TypeError, "a mapping of at least one name"),
        ({"a": LayerMeanActivity}, TypeError, "'a' must be an attribution over a data set"),
        ({"a": LayerActivation(nn.Linear(2, 2), None)}, TypeError, "got LayerActivation. unit_scores returns"),
    ],
)
def test_what_is_no_mapping_to_attributions_is_refused(dense_data, bad, error, message):
    with pytest.raises(error, match=message):
        attribute_together(bad, *dense_data)


def test_attributions_of_two_models_are_refused(dense, dense_data):
    other = nn.Sequential(nn.Linear(5, 3)).eval()
    found = {"a": LayerMeanActivity(dense, "0"), "b": LayerMeanActivity(other, "0")}
    with pytest.raises(ValueError, match="must be of one model to share a pass; got 2"):
        attribute_together(found, *dense_data)


def test_a_score_without_classes_is_refused_before_the_pass(digits_net, small_digits, passes):
    found = {"entropy": LayerEntropy(digits_net, "relu3")}
    with pytest.raises(ValueError, match="Layer Entropy has no score per class"):
        attribute_together(found, *small_digits, per_class=True)
    assert not passes


@pytest.mark.parametrize("per_class", [False, True])
def test_results_share_no_memory(dense, dense_data, per_class):
    found = {f"{cls.__name__} {k}": cls(dense, "0") for cls in (LayerKLSelectivity, LayerMeanActivity) for k in "ab"}
    found["information"] = LayerMutualInformation(dense, "0")
    results = attribute_together(found, *dense_data, per_class=per_class)
    kept = {name: scores.clone() for name, scores in results.items()}
    for name in results:
        results[name].fill_(-1.0)
        assert all(torch.equal(results[other], kept[other]) for other in list(results)[list(results).index(name) + 1 :])
