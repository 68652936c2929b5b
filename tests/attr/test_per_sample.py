"""Unit scores from any per-sample Captum attribution, against one call of the method for each sample."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import (
    LayerActivation,
    LayerConductance,
    LayerDeepLift,
    LayerDeepLiftShap,
    LayerFeatureAblation,
    LayerGradientShap,
    LayerGradientXActivation,
    LayerLRP,
)
from per_sample_methods import BASELINES, METHODS, by_sample, close, each_method, loop_mean
from torch import nn

from captum_ablate import CumulativeAblationEvaluator, unit_scores


def conv(digits_net):
    """The digits net with a functional flatten, because LRP has no rule for ``nn.Flatten``; and its conv2."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.head = digits_net[:5], digits_net[6:]

        def forward(self, x):
            return self.head(self.features(x).flatten(1))

    return Net().eval(), digits_net.conv2


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


def test_one_class_is_enough_to_attribute_to(dense, data):
    scores = unit_scores(LayerConductance(dense, dense[2]), (data[0], torch.ones(17, dtype=torch.long)))
    assert scores.shape == (6,)


def test_progress_is_shown_only_on_request(dense, data, capsys):
    unit_scores(LayerActivation(dense, dense[2]), data)
    assert capsys.readouterr().err == ""
    unit_scores(LayerActivation(dense, dense[2]), data, show_progress=True)
    assert "LayerActivation: 100%" in capsys.readouterr().err


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


@pytest.mark.parametrize("cls", [LayerConductance, LayerDeepLift, LayerActivation])
def test_a_partial_stands_in_for_an_attribution_in_the_evaluator(dense, dense_data, cls):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    method = partial(unit_scores, cls(dense, dense[2]), samples="mean_abs")
    curve = evaluator.evaluate(method, dense_data)
    close(curve.scores, unit_scores(cls(dense, dense[2]), dense_data, samples="mean_abs"))
