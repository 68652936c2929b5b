"""What a per-sample method cannot do is refused, and each error says how to make it work."""

from __future__ import annotations

import pytest
import torch
from captum.attr import (
    IntegratedGradients,
    LayerActivation,
    LayerAttribution,
    LayerConductance,
    LayerDeepLift,
    LayerDeepLiftShap,
    LayerFeaturePermutation,
    LayerGradCam,
    LayerGradientShap,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    LayerLRP,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

from captum_ablate import LayerMeanActivity, LayerUnitAblation, unit_scores


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


class Cuts(nn.Module):
    """Cuts off the gradient after its first layer, in the way that ``how`` says."""

    def __init__(self, how):
        super().__init__()
        self.how, self.first, self.last = how, nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x):
        if self.how == "reentrant":
            return self.last(checkpoint(self.first, x, use_reentrant=True))
        if self.how == "no_grad":
            with torch.no_grad():
                return self.last(self.first(x))
        with torch.inference_mode():
            hidden = self.first(x)
        return self.last(hidden.clone())


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("how", ["reentrant", "no_grad", "inference_mode"])
@pytest.mark.parametrize("cls", [LayerGradientXActivation, LayerConductance, LayerDeepLift])
def test_a_model_that_cuts_off_gradients_is_told_why_there_are_none(data, cls, how):
    model = Cuts(how).eval()
    with pytest.raises(
        ValueError, match=f"{cls.__name__} needs gradients, and none reaches 'first'.*use_reentrant=True"
    ):
        unit_scores(cls(model, model.first), data)
    assert LayerUnitAblation(model, "first").attribute(*data).shape == (4,)


def test_a_layer_that_also_returns_integers_is_told_so(image_data):
    class Pools(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.last = nn.MaxPool2d(4, return_indices=True), nn.Linear(4, 10)

        def forward(self, x):
            return self.last(self.pool(x)[0].flatten(1))

    model = Pools().eval()
    with pytest.raises(ValueError, match="or the layer returns integers, such as the indices of max-pooling"):
        unit_scores(LayerGradientXActivation(model, model.pool), image_data)


class WithLoss(nn.Module):
    """Returns a loss beside the class outputs."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.net = kind, nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))

    def forward(self, x):
        logits = self.net(x)
        loss = logits.logsumexp(1).mean()
        return {"loss": loss, "logits": logits} if self.kind == "dict" else (logits, loss)


@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_a_model_that_returns_a_loss_too_is_told_how_to_wrap_it(data, kind):
    model = WithLoss(kind).eval()
    with pytest.raises(
        ValueError, match=r"LayerConductance needs a model that returns a Tensor.*\['logits'\] or \[0\]"
    ):
        unit_scores(LayerConductance(model, model.net[1]), data)
    with pytest.raises(
        ValueError, match=r"LayerDeepLift needs a network that returns a Tensor.*nn\.Module whose forward"
    ):
        unit_scores(LayerDeepLift(model, model.net[1]), data)


def test_deep_lift_of_a_function_asks_for_the_module(dense, data):
    with pytest.raises(ValueError, match=r"LayerDeepLift hooks the modules.*pass the nn\.Module itself"):
        unit_scores(LayerDeepLift(lambda x: dense(x), dense[1]), data)


def test_deep_lift_of_a_module_that_runs_twice_is_told_so(data):
    relu = nn.ReLU(inplace=True)
    model = nn.Sequential(nn.Linear(5, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 3)).eval()
    with pytest.raises(ValueError, match="LayerDeepLift needs each activation module to be used once"):
        unit_scores(LayerDeepLift(model, model[0]), data)


@pytest.mark.parametrize("wrong", [-1, 3])
@pytest.mark.parametrize("batch", [0, 1])
def test_labels_without_an_output_are_refused_before_captum_looks_them_up(dense, data, wrong, batch):
    """On a GPU the look-up would break off the process."""
    x, y = data[0], data[1].clone()
    y[batch * 10] = wrong
    with pytest.raises(ValueError, match=rf"labels must be 0\.\.2, the indices of the model's 3 outputs; got {wrong}"):
        unit_scores(LayerConductance(dense, dense[2]), (x, y), batch_size=10)
