"""Unit scores from any per-sample Captum attribution, against one call of the method for each sample."""

from __future__ import annotations

import contextlib
import random
from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import (
    IntegratedGradients,
    InternalInfluence,
    LayerActivation,
    LayerAttribution,
    LayerConductance,
    LayerDeepLift,
    LayerDeepLiftShap,
    LayerFeatureAblation,
    LayerFeaturePermutation,
    LayerGradCam,
    LayerGradientShap,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    LayerLRP,
)
from captum_networks import BasicModel_MultiLayer, BasicModel_MultiLayer_MultiInput
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_ablate import Batch, CumulativeAblationEvaluator, LayerMeanActivity, unit_scores

BASELINES = torch.linspace(-1, 1, 15).reshape(3, 5)


class LayerSquare(LayerAttribution):
    """A user's own method: the squared activation times one plus the label."""

    def attribute(self, inputs, target=None, additional_forward_args=None):
        kept = []
        handle = self.layer.register_forward_hook(lambda _, __, output: kept.append(output.detach().clone()))
        extra = () if additional_forward_args is None else additional_forward_args
        self.forward_func(*(inputs if isinstance(inputs, tuple) else (inputs,)), *extra)
        handle.remove()
        weights = torch.as_tensor(target).reshape(-1, *[1] * (kept[0].ndim - 1)) + 1
        return kept[0] ** 2 * weights


METHODS = {
    LayerActivation: {},
    LayerConductance: {"n_steps": 7},
    InternalInfluence: {"n_steps": 7},
    LayerGradientXActivation: {},
    LayerIntegratedGradients: {"n_steps": 7},
    LayerDeepLift: {},
    LayerDeepLiftShap: {"baselines": BASELINES},
    LayerLRP: {},
    LayerFeatureAblation: {},
    LayerGradCam: {"attr_dim_summation": False},
    LayerSquare: {},
}
each_method = pytest.mark.parametrize("cls", list(METHODS), ids=lambda cls: cls.__name__)


def close(one, other, atol=1e-6):
    torch.testing.assert_close(torch.as_tensor(one).double(), torch.as_tensor(other).double(), rtol=1e-5, atol=atol)


def by_sample(attribution, x, targets=None, unit_dim=1, **kwargs):
    """The sum over positions of each sample's attribution, one call for each sample, ``[n, units]``."""
    rows = []
    for i in range(len(x)):
        own = dict(kwargs) if targets is None else {**kwargs, "target": int(targets[i])}
        values = attribution.attribute(x[i : i + 1].clone(), **own).detach().double()[0]
        unit_dim_of_one = unit_dim - 1 if unit_dim > 0 else unit_dim
        units = values.shape[unit_dim_of_one]
        rows.append([float(values.select(unit_dim_of_one, u).sum()) for u in range(units)])
    return np.array(rows)


def loop_mean(rows):
    return np.array([sum(column) / len(column) for column in rows.T])


def conv(digits_net):
    """The digits net with a functional flatten, because LRP has no rule for ``nn.Flatten``; and its conv2."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.head = digits_net[:5], digits_net[6:]

        def forward(self, x):
            return self.head(self.features(x).flatten(1))

    return Net().eval(), digits_net.conv2


@pytest.fixture
def data(dense_data):
    return dense_data[0][:17], dense_data[1][:17]


@pytest.fixture
def image_data(small_digits):
    return small_digits[0][:9], small_digits[1][:9]


@each_method
@pytest.mark.parametrize("batch_size", [None, 7])
def test_unit_scores_are_the_mean_over_samples(dense, data, cls, batch_size):
    attribution, kwargs = cls(dense, dense[2]), METHODS[cls]
    expected = loop_mean(by_sample(attribution, data[0], None if cls is LayerActivation else data[1], **kwargs))
    scores = unit_scores(attribution, data, batch_size=batch_size, **kwargs)
    assert (scores.shape, scores.dtype, scores.requires_grad) == ((6,), torch.float64, False)
    assert scores.grad_fn is None
    assert float(np.abs(expected).max()) > 1e-3
    close(scores, expected)


@pytest.mark.parametrize(
    "cls", [c for c in METHODS if c not in (LayerDeepLiftShap, LayerFeatureAblation)], ids=lambda cls: cls.__name__
)
def test_unit_scores_of_channels_sum_over_positions(digits_net, image_data, cls):
    attribution, kwargs = cls(*conv(digits_net)), METHODS[cls]
    targets = None if cls is LayerActivation else image_data[1]
    rows = by_sample(attribution, image_data[0], targets, **kwargs)
    close(unit_scores(attribution, image_data, batch_size=4, **kwargs), loop_mean(rows), atol=1e-5)
    positions = 2 * 2
    mean = unit_scores(attribution, image_data, batch_size=4, positions="mean", **kwargs)
    close(mean, loop_mean(rows / positions), atol=1e-5)


@pytest.mark.parametrize("perturbations", [1, 3])
def test_feature_ablation_removes_a_whole_unit_and_makes_its_own_mask(digits_net, image_data, perturbations):
    x, y = image_data
    attribution = LayerFeatureAblation(digits_net, digits_net.conv2)
    expected = []
    with torch.no_grad():
        intact = digits_net(x)[range(9), y]
        for unit in range(16):

            def ablate(_, __, output, unit=unit):
                output = output.clone()
                output[:, unit] = 0
                return output

            handle = digits_net.conv2.register_forward_hook(ablate)
            expected.append(float((intact - digits_net(x)[range(9), y]).mean()))
            handle.remove()
    found = unit_scores(attribution, image_data, batch_size=4, positions="mean", perturbations_per_eval=perturbations)
    close(found, expected, atol=1e-5)
    own_mask = torch.arange(16).reshape(1, 16, 1, 1)
    close(unit_scores(attribution, image_data, positions="mean", layer_mask=None), expected, atol=1e-5)
    by_hand = attribution.attribute(x, target=y, layer_mask=own_mask).mean((0, 2, 3))
    close(found, by_hand, atol=1e-5)


def test_gradient_shap_is_captums_own_with_the_same_seed(dense, data):
    def seeded(run):
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002  Captum draws from it
        return run()

    shap = LayerGradientShap(dense, dense[2])
    expected = seeded(lambda: shap.attribute(data[0], BASELINES, target=data[1])).detach().double().mean(0)
    method = partial(unit_scores, shap, baselines=BASELINES)
    close(seeded(lambda: method(data)), expected)
    assert not torch.equal(method(data), method((data[0] * 2, data[1])))


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


@pytest.mark.parametrize("cls", [LayerGradientXActivation, LayerConductance, LayerDeepLift, LayerLRP])
def test_targets_are_labels_predictions_or_one_output(dense, data, cls):
    x, y = data
    attribution = cls(dense, dense[2])
    with torch.no_grad():
        predicted = dense(x).argmax(1)
    assert not torch.equal(predicted, y)
    close(unit_scores(attribution, data), loop_mean(by_sample(attribution, x, y)))
    close(unit_scores(attribution, data, target="label"), loop_mean(by_sample(attribution, x, y)))
    close(unit_scores(attribution, data, target="prediction"), loop_mean(by_sample(attribution, x, predicted)))
    close(unit_scores(attribution, data, target=2), loop_mean(by_sample(attribution, x, torch.full_like(y, 2))))


def test_no_target_is_for_a_model_with_one_output(dense, data):
    def logit_sum(x):
        return dense(x).sum(1)

    attribution = LayerGradientXActivation(logit_sum, dense[2])
    expected = loop_mean(by_sample(attribution, data[0]))
    close(unit_scores(attribution, data, target=None), expected)


def test_mean_abs_is_the_mean_of_each_samples_absolute_sum(digits_net, image_data):
    attribution = LayerGradientXActivation(digits_net, digits_net.conv1)
    rows = by_sample(attribution, *image_data)
    close(unit_scores(attribution, image_data, samples="mean_abs"), loop_mean(np.abs(rows)), atol=1e-5)
    assert (loop_mean(np.abs(rows)) > np.abs(loop_mean(rows)) + 1e-3).any()


def test_scores_per_class_average_the_samples_of_each_class(dense, dense_data):
    x, y = dense_data
    attribution = LayerConductance(dense, dense[2])
    rows = by_sample(attribution, x[:25], y[:25])
    labels = y[:25].numpy()
    expected = np.stack([loop_mean(rows[labels == c]) for c in sorted(set(labels))])
    close(unit_scores(attribution, (x[:25], y[:25]), per_class=True, batch_size=4), expected)
    absolute = np.stack([loop_mean(np.abs(rows[labels == c])) for c in sorted(set(labels))])
    found = unit_scores(attribution, (x[:25], y[:25]), per_class=True, samples="mean_abs", batch_size=4)
    close(found, absolute)


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


def test_one_class_is_enough_to_attribute_to(dense, data):
    scores = unit_scores(LayerConductance(dense, dense[2]), (data[0], torch.ones(17, dtype=torch.long)))
    assert scores.shape == (6,)


def test_progress_is_shown_only_on_request(dense, data, capsys):
    unit_scores(LayerActivation(dense, dense[2]), data)
    assert capsys.readouterr().err == ""
    unit_scores(LayerActivation(dense, dense[2]), data, show_progress=True)
    assert "LayerActivation: 100%" in capsys.readouterr().err


def test_no_graph_and_no_gradients_are_kept(dense, data):
    x = data[0].clone().requires_grad_()
    scores = unit_scores(LayerGradientXActivation(dense, dense[2]), (x, data[1]))
    assert scores.grad_fn is None
    assert x.grad is None
    assert x.requires_grad
    assert all(p.grad is None for p in dense.parameters())


def test_scores_are_the_same_inside_no_grad(dense, data):
    attribution = LayerConductance(dense, dense[2])
    expected = unit_scores(attribution, data)
    with torch.no_grad():
        close(unit_scores(attribution, data), expected)
        assert not torch.is_grad_enabled()


def test_a_layer_before_an_in_place_relu_keeps_its_own_activation(data):
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)).eval()
    plain = nn.Sequential(model[0], nn.ReLU(), model[2])
    for cls in (LayerActivation, LayerConductance, LayerGradientXActivation, LayerDeepLift, LayerFeatureAblation):
        close(unit_scores(cls(model, model[0]), data), unit_scores(cls(plain, plain[0]), data))


# Bad input: each says how to make it work.


def test_plain_gradcam_says_how_to_keep_channels_apart(digits_net, image_data):
    attribution = LayerGradCam(digits_net, digits_net.conv2)
    message = (
        r"LayerGradCam returned attributions of shape \(9, 1, 2, 2\).*attr_dim_summation=False.*functools\.partial"
    )
    with pytest.raises(ValueError, match=message):
        unit_scores(attribution, image_data)


@pytest.mark.parametrize("cls", [LayerGradientShap, LayerDeepLiftShap])
def test_missing_baselines_say_how_to_give_them(dense, data, cls):
    message = rf"{cls.__name__} needs baselines.*functools\.partial\(unit_scores, {cls.__name__}.*baselines="
    with pytest.raises(ValueError, match=message):
        unit_scores(cls(dense, dense[2]), data)


@pytest.mark.parametrize("inplace", [False, True])
def test_lrp_on_a_relu_says_which_layers_have_a_rule(data, inplace):
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=inplace), nn.Linear(4, 3)).eval()
    with pytest.raises(ValueError, match=r"LayerLRP has no rule for ReLU '1'.*name a Linear or Conv layer"):
        unit_scores(LayerLRP(model, model[1]), data)


def test_integrated_gradients_before_an_in_place_relu_says_what_to_name(data):
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)).eval()
    with pytest.raises(ValueError, match=r"LayerIntegratedGradients cannot pass '0'.*in place.*inplace=False"):
        unit_scores(LayerIntegratedGradients(model, model[0]), data)


def test_unknown_arguments_are_refused_with_those_there_are(dense, data):
    with pytest.raises(TypeError, match=r"LayerConductance\.attribute has no argument 'n_step'.*n_steps"):
        unit_scores(LayerConductance(dense, dense[2]), data, n_step=3)
    with pytest.raises(TypeError, match=r"LayerActivation\.attribute has no argument 'baselines'"):
        unit_scores(LayerActivation(dense, dense[2]), data, baselines=0)


def test_a_convergence_delta_is_refused(dense, data):
    with pytest.raises(ValueError, match="return_convergence_delta returns no unit scores; leave it out"):
        unit_scores(LayerConductance(dense, dense[2]), data, return_convergence_delta=True)


def test_our_own_attribution_is_told_to_be_called_directly(dense, data):
    message = r"LayerMeanActivity returns one score per unit already; call attribution\.attribute\(inputs, target"
    with pytest.raises(TypeError, match=message):
        unit_scores(LayerMeanActivity(dense, "2"), data)


def test_feature_permutation_says_that_it_fails_and_what_to_take_instead(dense, data):
    with pytest.raises(ValueError, match=r"LayerFeaturePermutation") as caught:
        unit_scores(LayerFeaturePermutation(dense, dense[2]), data)
    assert "LayerFeatureAblation" in str(caught.value) or "instead" in str(caught.value)


@pytest.mark.parametrize("wrong", [IntegratedGradients, LayerActivation, lambda model: "LayerConductance"])
def test_what_is_no_layer_attribution_is_refused(dense, data, wrong):
    attribution = wrong if wrong is LayerActivation else wrong(dense)
    with pytest.raises(TypeError):
        unit_scores(attribution, data)


def test_a_list_of_layers_is_refused(dense, data):
    with pytest.raises(TypeError, match=r"LayerActivation .*one layer"):
        unit_scores(LayerActivation(dense, [dense[0], dense[2]]), data)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"positions": "max"}, r'positions must be "sum" or "mean"; got \'max\''),
        ({"samples": "median"}, r'samples must be "mean" or "mean_abs"; got \'median\''),
        ({"target": "class"}, r'target must be "label", "prediction", an output index or None; got \'class\''),
        ({"unit_dim": 0}, "unit_dim=0 is the axis of the samples"),
        ({"unit_dim": 3}, "unit_dim=3 is no unit axis of a layer output of shape"),
        ({"batch_size": 0}, "batch_size must be a positive int"),
        ({"layer_mask": torch.tensor([0, 1])}, "layer_mask must have one group number for each of the 6 indices"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_options_are_refused(dense, data, option, message):
    with pytest.raises(ValueError, match=message):
        unit_scores(LayerConductance(dense, dense[2]), data, **option)


def test_an_output_index_beyond_the_outputs_is_refused(dense, data):
    with pytest.raises(ValueError, match=r"LayerConductance failed on layer '2'"):
        unit_scores(LayerConductance(dense, dense[2]), data, target=7)


def test_labels_beyond_the_outputs_are_refused(dense, data):
    with pytest.raises(ValueError, match=r"LayerConductance failed on layer '2'"):
        unit_scores(LayerConductance(dense, dense[2]), (data[0], data[1] + 5))


def test_empty_data_and_training_mode_are_refused(dense, data):
    with pytest.raises(ValueError, match="data set is empty"):
        unit_scores(LayerActivation(dense, dense[2]), [])
    model = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.Linear(4, 3)).train()
    with pytest.raises(ValueError, match=r"training mode: Dropout '1'.*model\.eval\(\)"):
        unit_scores(LayerActivation(model, model[0]), data)


def test_attributions_that_are_not_finite_are_refused_with_the_unit(dense, data):
    class LayerLog(LayerAttribution):
        def attribute(self, inputs):
            values = torch.ones(len(inputs), 6)
            values[:, 4] = float("nan")
            return values

    with pytest.raises(ValueError, match=r"LayerLog returned NaN or infinite attributions, first for unit 4"):
        unit_scores(LayerLog(dense, dense[2]), data)


@pytest.mark.parametrize("result", [lambda n: torch.ones(6), lambda n: torch.ones(n, 5), lambda n: "ones"])
def test_a_method_that_returns_another_shape_is_refused(dense, data, result):
    class LayerOdd(LayerAttribution):
        def attribute(self, inputs):
            return result(len(inputs))

    with pytest.raises(ValueError, match="LayerOdd"):
        unit_scores(LayerOdd(dense, dense[2]), data)


# The model comes back as it was.


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


@pytest.mark.parametrize("cls", [LayerConductance, LayerDeepLift, LayerActivation])
def test_a_partial_stands_in_for_an_attribution_in_the_evaluator(dense, dense_data, cls):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    method = partial(unit_scores, cls(dense, dense[2]), samples="mean_abs")
    curve = evaluator.evaluate(method, dense_data)
    close(curve.scores, unit_scores(cls(dense, dense[2]), dense_data, samples="mean_abs"))
