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
    BasicModelWithReusedModules,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import captum_ablate
from captum_ablate import (
    Batch,
    LayerClassSelectivity,
    LayerDatasetAttribution,
    LayerEntropy,
    LayerKLSelectivity,
    LayerLinearProbe,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerSelectivityActivity,
    LayerUnitAblation,
)

OWN_OPTIONS = {
    LayerMeanActivity: {},
    LayerClassSelectivity: {"eps"},
    LayerEntropy: {"threshold", "bins", "edges"},
    LayerMutualInformation: {"threshold", "bins", "edges", "bias_correction"},
    LayerKLSelectivity: {"threshold", "bins", "edges"},
    LayerSelectivityActivity: {"selectivity"},
    LayerLinearProbe: {"C"},
    LayerUnitAblation: {"reference", "metric"},
}
CLASSES = list(OWN_OPTIONS)
PROBE = partial(LayerLinearProbe, C=1.0)  # the same strength whatever the folds, and fast
FACTORIES = [PROBE if cls is LayerLinearProbe else cls for cls in CLASSES]

each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
each = pytest.mark.parametrize("factory", FACTORIES, ids=[cls.__name__ for cls in CLASSES])
pytestmark = pytest.mark.filterwarnings("ignore:.*units have an entropy below:UserWarning")


def close(one, other, atol=1e-5):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=atol)


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


@pytest.mark.parametrize("factory", [f for f in FACTORIES if f is not LayerUnitAblation])  # it needs several passes
def test_a_one_shot_generator_is_fine_where_one_pass_will_do(dense, dense_data, factory):
    x, y = dense_data
    attribution = factory(dense, "2")
    batches = list(zip(x.split(25), y.split(25), strict=True))
    close(attribution.attribute(batch for batch in batches), attribution.attribute(x, target=y))


def test_a_one_shot_generator_is_refused_where_a_second_pass_is_needed(dense, dense_data, monkeypatch):
    monkeypatch.setattr("captum_ablate.statistics.unit_statistics.TABLE_BYTES", 10)
    batches = zip(dense_data[0].split(25), dense_data[1].split(25), strict=True)
    with pytest.raises(ValueError, match=r"one-shot generator, and more than one pass.*pass a list of batches"):
        LayerMutualInformation(dense, "0", bins=4).attribute(batches)


def test_a_one_shot_generator_is_refused_by_unit_ablation_before_any_of_it_is_used(dense, dense_data):
    batches = zip(dense_data[0].split(25), dense_data[1].split(25), strict=True)
    with pytest.raises(ValueError, match=r"one-shot generator, and more than one pass.*unit ablation"):
        LayerUnitAblation(dense, "0").attribute(batches)
    assert len(list(batches)) == 3


@pytest.mark.parametrize("cls", [LayerEntropy, LayerMutualInformation, LayerKLSelectivity])
def test_two_passes_give_what_one_pass_gives(digits_net, small_digits, monkeypatch, cls):
    x, y = small_digits
    attribution = cls(digits_net, ["conv1", "relu3"], bins=5)
    once = attribution.attribute(x, target=y, batch_size=40)
    monkeypatch.setattr("captum_ablate.statistics.unit_statistics.TABLE_BYTES", 10)
    twice = attribution.attribute(x, target=y, batch_size=40)
    default = cls(digits_net, "conv1").attribute(x, target=y, batch_size=40)
    monkeypatch.undo()
    for one, other in zip(once, twice, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    torch.testing.assert_close(cls(digits_net, "conv1").attribute(x, target=y), default, rtol=0, atol=0)


@pytest.mark.parametrize(
    "factory",
    [
        LayerLinearProbe,
        partial(LayerEntropy, threshold="median"),
        partial(LayerMutualInformation, bins=4, edges="mass"),
    ],
)
def test_what_needs_all_activations_at_once_says_so_beyond_its_budget(dense, dense_data, monkeypatch, factory):
    monkeypatch.setattr("captum_ablate.statistics.unit_statistics.TABLE_BYTES", 10)
    with pytest.raises(ValueError, match=r"exceeds its budget of .* GiB.*use fewer samples, or bins="):
        factory(dense, "0").attribute(dense_data[0], target=dense_data[1])


def test_statistics_that_stream_do_not_care_about_the_budget(dense, dense_data, monkeypatch):
    x, y = dense_data
    attributions = [
        LayerMeanActivity(dense, "0"),
        LayerClassSelectivity(dense, "0"),
        LayerMutualInformation(dense, "0", threshold=0.1),
    ]
    before = [a.attribute(b for b in [(x, y)]) for a in attributions]
    monkeypatch.setattr("captum_ablate.statistics.unit_statistics.TABLE_BYTES", 10)
    for attribution, scores in zip(attributions, before, strict=True):
        torch.testing.assert_close(attribution.attribute(b for b in [(x, y)]), scores, rtol=0, atol=0)


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


@pytest.mark.parametrize("factory", [f for f in FACTORIES if f is not LayerEntropy])  # see test_information
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


@pytest.mark.parametrize("factory", [f for f in FACTORIES if f is not LayerUnitAblation])  # it acts on the indices
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
        (torch.zeros(60, dtype=torch.long), r"one class only \(label 0\).*two or more"),
        ([2] * 60, r"one class only \(label 2\)"),
    ],
    ids=[
        "none",
        "int",
        "scalar",
        "soft",
        "multi-label",
        "float",
        "short",
        "one class",
        "one class in a list",
    ],
)
def test_labels_that_are_no_classes_are_refused(dense, dense_data, factory, target, message):
    with pytest.raises(ValueError, match=message):
        factory(dense, "0").attribute(dense_data[0], target=target)


def test_labels_that_are_no_numbers_are_refused(dense, dense_data):
    with pytest.raises(TypeError, match="must be integers"):
        LayerMeanActivity(dense, "0").attribute(dense_data[0], target=["cat"] * 60)


@pytest.mark.parametrize("factory", [f for f in FACTORIES if f is not LayerUnitAblation])
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
    with pytest.raises(ValueError, match=r"layer 'inner' gives dict.*name a layer inside it"):
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


def test_labels_of_all_integer_types_are_the_same(dense, dense_data):
    x, y = dense_data
    attribution = LayerMeanActivity(dense, "0")
    expected = attribution.attribute(x, target=y, per_class=True)
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.uint16):
        torch.testing.assert_close(attribution.attribute(x, target=y.to(dtype), per_class=True), expected)
    for dtype in (np.uint8, np.int32, np.uint16, np.uint32, np.uint64):
        labels = y.numpy().astype(dtype)
        torch.testing.assert_close(attribution.attribute(x, target=labels, per_class=True), expected)
