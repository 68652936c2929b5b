"""Layers found by module or name, listed with their calls, and models that hooks cannot reach."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from captum.attr import LayerGradientXActivation
from torch import nn

from captum_ablate import (
    CumulativeAblationEvaluator,
    LayerClassSelectivity,
    LayerMeanActivity,
    LayerUnitAblation,
    unit_scores,
)
from captum_ablate.inputs.borrowed import borrowed, refuse_training_mode
from captum_ablate.inputs.model import as_model, find_layer, layer_name


def test_a_name_finds_its_module(digits_net):
    assert find_layer(digits_net, "conv2") is digits_net.conv2
    assert find_layer(digits_net, digits_net.conv2) is digits_net.conv2
    nested = nn.Sequential(digits_net)
    assert find_layer(nested, "0.fc1") is digits_net.fc1
    assert layer_name(nested, digits_net.fc1) == "0.fc1"


def test_an_unknown_name_is_refused_with_the_nearest_ones(digits_net):
    with pytest.raises(ValueError, match=r"no layer 'convv1'; nearest: 'conv1'"):
        find_layer(digits_net, "convv1")
    with pytest.raises(
        ValueError, match=r"no layer 'transformer'; it has 'conv1', 'relu1'.*list_layers\(model, inputs\) shows all"
    ):
        find_layer(digits_net, "transformer")


def test_a_module_of_another_model_is_refused_with_those_of_its_type(digits_net):
    message = r"Conv2d is not a module of the model; layers of that type in it: 'conv1', 'conv2'; see list_layers"
    with pytest.raises(ValueError, match=message):
        find_layer(digits_net, nn.Conv2d(1, 8, 3))
    with pytest.raises(ValueError, match=r"Bilinear is not a module of the model; see list_layers"):
        find_layer(digits_net, nn.Bilinear(1, 1, 1))


def test_a_name_needs_a_model_that_is_a_module(digits_net):
    with pytest.raises(TypeError, match=r"layer 'fc1' is a name, but forward_func is no nn\.Module"):
        find_layer(lambda x: digits_net(x), "fc1")
    with pytest.raises(TypeError, match=r"layer must be an nn\.Module or its dotted name; got int"):
        find_layer(digits_net, 3)


def test_scripted_and_traced_models_are_refused(dense):
    x = torch.zeros(2, 5)
    for model in (torch.jit.script(dense), torch.jit.trace(dense, x)):
        with pytest.raises(TypeError, match="scripted or traced model, on which Python hooks have no effect"):
            as_model(model)


def test_a_compiled_model_is_unwrapped_with_its_layers(dense, dense_data):
    x, y = dense_data
    compiled = torch.compile(dense, backend="eager")
    assert as_model(compiled) is dense
    scores = LayerMeanActivity(dense, "2").attribute(x, target=y)
    for layer in ("2", dense[2]):
        torch.testing.assert_close(LayerMeanActivity(compiled, layer).attribute(x, target=y), scores)


def test_a_compiled_layer_of_a_plain_model_is_found(dense):
    compiled = torch.compile(dense[2], backend="eager")
    assert find_layer(dense, compiled) is dense[2]


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"forward_func must be an nn\.Module or a function; got Tensor"):
        as_model(torch.zeros(3))


def test_a_model_with_lazy_layers_is_refused_until_it_has_run():
    model = nn.Sequential(nn.LazyLinear(4))
    with pytest.raises(ValueError, match="lazy layers without weights yet; run it on one batch first"):
        as_model(model)
    model(torch.zeros(1, 3))
    assert as_model(model) is model


@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm1d(3),
        nn.BatchNorm2d(3),
        nn.Dropout(0.1),
        nn.Dropout2d(0.1),
        nn.AlphaDropout(0.1),
        nn.RReLU(),
    ],
    ids=lambda m: type(m).__name__,
)
def test_layers_that_act_differently_in_training_are_refused_only_there(module):
    model = nn.Sequential(nn.Identity(), module)
    with pytest.raises(ValueError, match=rf"{type(module).__name__} '1' .*call model\.eval\(\) first"):
        refuse_training_mode(model.train())
    refuse_training_mode(model.eval())


@pytest.mark.parametrize(
    "module",
    [nn.LayerNorm(3), nn.Dropout(0.0), nn.GroupNorm(1, 3), nn.LSTM(3, 3)],
    ids=lambda m: type(m).__name__,
)
def test_layers_that_act_alike_in_training_are_fine(module):  # passes if nothing is raised
    refuse_training_mode(nn.Sequential(module).train())


def test_recurrent_and_attention_layers_with_dropout_are_refused_in_training():
    for module in (nn.LSTM(3, 3, num_layers=2, dropout=0.2), nn.MultiheadAttention(4, 2, dropout=0.2)):
        with pytest.raises(ValueError, match="training mode"):
            refuse_training_mode(nn.ModuleList([module]).train())


def test_dropout_in_training_inside_a_model_in_evaluation_is_refused():
    model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).eval()
    model[1].train()
    with pytest.raises(ValueError, match="Dropout '1'"):
        refuse_training_mode(model)


class TimeFirst(nn.Module):
    """A recurrent layer in PyTorch's default layout, ``[time, n, width]``, in a model of ``[n, time, width]``."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.LSTM(6, 10), nn.Linear(10, 3)

    def forward(self, x):
        return self.head(self.inner(x.transpose(0, 1))[0][-1])


@pytest.mark.parametrize("n", [2, 5])
def test_positions_first_are_refused_also_where_there_are_as_many_as_samples(n):
    model, x, y = TimeFirst().eval(), torch.randn(12, n, 6), torch.arange(12) % 3
    data = [(a, b) for a, b in zip(x.split(n), y.split(n), strict=True) if len(a) == n]
    for attribution in (LayerClassSelectivity, LayerUnitAblation):
        with pytest.raises(ValueError, match=r"the first axis of its output must be the samples.*batch_first=True"):
            attribution(model, "inner", unit_dim=-1).attribute(data)
    with pytest.raises(ValueError, match=r"first axis .*must be the samples.*batch_first=True"):
        CumulativeAblationEvaluator(model, "inner", unit_dim=-1).evaluate(torch.rand(10), data)


def test_as_many_channels_as_samples_are_no_positions(digits_net, small_digits):
    x, y = small_digits
    assert LayerClassSelectivity(digits_net, "relu2").attribute(x[:16], y[:16]).shape == (16,)


def test_nested_tensors_are_refused_with_a_way_out():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.encoder(x, src_key_padding_mask=x[:, :, 0] > 1)[:, 0])

    x, y = torch.randn(9, 4, 8), torch.arange(9) % 3
    x[:, :, 0] = 0
    x[:, 3, 0] = 2
    with pytest.raises(ValueError, match=r"nested tensor.*enable_nested_tensor=False"):
        CumulativeAblationEvaluator(Padded().eval(), "encoder.layers.0", unit_dim=-1).evaluate(torch.rand(8), (x, y))


def test_a_borrowed_model_comes_back_as_it_was_and_is_refused_in_training_mode():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).eval()
    with borrowed(model, "what the data come from"):
        model[0].register_forward_hook(print)
        model.train()
    assert not model[0]._forward_hooks
    assert not model.training
    with pytest.raises(ValueError, match="training mode"), borrowed(model.train()):
        pass
    assert model.training


@pytest.mark.parametrize("how", ["set", "block"])
def test_another_default_device_is_refused_with_what_to_do(dense, dense_data, how):
    """Here new tensors would be made on the meta device, as they are on a GPU after set_default_device("cuda")."""
    attribution, evaluator = LayerMeanActivity(dense, "2"), CumulativeAblationEvaluator(dense, "2")
    scores = torch.rand(6)
    message = r"set_default_device\('meta'\).*call torch\.set_default_device\('cpu'\) first"
    with torch.device("meta") if how == "block" else nullcontext():
        if how == "set":
            torch.set_default_device("meta")
        try:
            for call in (
                lambda: attribution.attribute(dense_data[0], target=dense_data[1]),
                lambda: evaluator.evaluate(scores, dense_data),
                lambda: unit_scores(LayerGradientXActivation(dense, dense[2]), dense_data),
            ):
                with pytest.raises(ValueError, match=message):
                    call()
        finally:
            if how == "set":
                torch.set_default_device(None)
    evaluator.evaluate(scores, dense_data)
