"""What a per-sample method cannot do is refused, and each error says how to make it work."""

from __future__ import annotations

import pytest
import torch
from captum.attr import (
    IntegratedGradients,
    LayerActivation,
    LayerAttribution,
    LayerConductance,
    LayerDeepLiftShap,
    LayerFeaturePermutation,
    LayerGradCam,
    LayerGradientShap,
    LayerIntegratedGradients,
    LayerLRP,
)
from torch import nn

from captum_ablate import LayerMeanActivity, unit_scores


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
