"""Mean activity, and with it how activations are read: units, positions, groups, layers, precision."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from captum.attr import LayerActivation
from captum_networks import (
    BasicModel_ConvNet,
    BasicModel_ConvNetWithPaddingDilation,
    BasicModel_MultiLayer,
)
from torch import nn

from captum_ablate import LayerMeanActivity


class Tokens(nn.Module):
    """A token net: embedding, a layer of ``[n, tokens, units]``, mean over tokens, classes."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.mix = nn.Linear(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, ids):
        return self.head(torch.relu(self.mix(self.embed(ids))).mean(1))


class Two(nn.Module):
    """Gives two tensors, of different widths."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(5, 6)

    def forward(self, x):
        return self.a(x), self.b(x)


class TwoThenSum(nn.Module):
    def __init__(self):
        super().__init__()
        self.two, self.head = Two(), nn.Linear(10, 3)

    def forward(self, x):
        return self.head(torch.cat(self.two(x), dim=1))


def test_mean_activity_equals_oracle_on_every_digits_layer(digits_net, small_digits):
    x, y = small_digits
    for name in ("conv1", "relu2", "flat", "fc1", "relu3", "fc2"):
        layer = digits_net.get_submodule(name)
        values = oracles.layer_values(digits_net, layer, x)
        scores = LayerMeanActivity(digits_net, layer).attribute(x, target=y)
        np.testing.assert_allclose(scores.numpy(), oracles.mean_activity(values), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("model", "layer", "shape"),
    [
        (BasicModel_MultiLayer(), "linear1", (12, 3)),
        (BasicModel_ConvNet(), "conv2", (12, 1, 10, 10)),
        (BasicModel_ConvNetWithPaddingDilation(inplace=True), "conv1", (12, 1, 5, 5)),
    ],
)
def test_mean_activity_equals_oracle_on_captum_models(model, layer, shape):
    x, y = torch.randn(shape) * 3, torch.arange(12) % 2
    values = oracles.layer_values(model, model.get_submodule(layer), x)
    scores = LayerMeanActivity(model, layer).attribute(x, target=y)
    np.testing.assert_allclose(scores.numpy(), oracles.mean_activity(values), rtol=1e-9, atol=1e-9)


def test_class_means_equal_oracle_in_ascending_label_order(dense, dense_data):
    x, y = dense_data
    labels = torch.tensor([250, 3, 17])[y]
    scores = LayerMeanActivity(dense, "2").attribute(x, target=labels, per_class=True)
    expected = oracles.class_means(oracles.layer_values(dense, dense[2], x), labels.tolist())
    assert scores.shape == (3, 6)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_last_dim_holds_the_units_of_a_token_layer():
    model, ids, y = Tokens().eval(), torch.randint(0, 11, (20, 7)), torch.arange(20) % 3
    scores = LayerMeanActivity(model, "mix", unit_dim=-1).attribute(ids, target=y)
    expected = oracles.mean_activity(oracles.layer_values(model, model.mix, ids, unit_dim=-1))
    assert scores.shape == (8,)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-9)


def test_token_layers_may_change_length_between_batches():
    model = Tokens().eval()
    batches = [(torch.randint(0, 11, (6, length)), torch.arange(6) % 3) for length in (4, 9)]
    scores = LayerMeanActivity(model, "mix", unit_dim=-1).attribute(batches)
    values = np.concatenate([oracles.layer_values(model, model.mix, ids, unit_dim=-1) for ids, _ in batches])
    np.testing.assert_allclose(scores.numpy(), oracles.mean_activity(values), atol=1e-9)


def test_unit_dim_none_makes_every_element_a_unit(digits_net, small_digits):
    x, y = small_digits
    scores = LayerMeanActivity(digits_net, "conv2", unit_dim=None).attribute(x, target=y)
    expected = oracles.mean_activity(oracles.layer_values(digits_net, digits_net.conv2, x, unit_dim=None))
    assert scores.shape == (16 * 2 * 2,)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-9)


def test_a_tuple_output_gives_a_tuple_of_scores(dense_data):
    x, y = dense_data
    model = TwoThenSum().eval()
    scores = LayerMeanActivity(model, "two").attribute(x, target=y)
    assert isinstance(scores, tuple)
    for part, layer in zip(scores, (model.two.a, model.two.b), strict=True):
        np.testing.assert_allclose(
            part.numpy(), oracles.mean_activity(oracles.layer_values(model, layer, x)), atol=1e-9
        )


def test_a_list_of_layers_gives_a_list_in_its_order(digits_net, small_digits):
    x, y = small_digits
    together = LayerMeanActivity(digits_net, ["fc1", digits_net.conv1]).attribute(x, target=y)
    alone = [LayerMeanActivity(digits_net, name).attribute(x, target=y) for name in ("fc1", "conv1")]
    assert isinstance(together, list)
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_list_of_one_layer_gives_a_list_of_one(dense, dense_data):
    scores = LayerMeanActivity(dense, ["0"]).attribute(dense_data[0], target=dense_data[1])
    assert isinstance(scores, list)
    assert [s.shape for s in scores] == [(7,)]


def test_a_name_and_its_module_give_the_same(digits_net, small_digits):
    x, y = small_digits
    by_name = LayerMeanActivity(digits_net, "conv2").attribute(x, target=y)
    by_module = LayerMeanActivity(digits_net, digits_net.conv2).attribute(x, target=y)
    torch.testing.assert_close(by_name, by_module, rtol=0, atol=0)


def test_attribute_to_layer_input_scores_what_the_layer_receives(digits_net, small_digits):
    x, y = small_digits
    scores = LayerMeanActivity(digits_net, "fc1").attribute(x, target=y, attribute_to_layer_input=True)
    expected = oracles.mean_activity(oracles.layer_values(digits_net, digits_net.fc1, x, at_input=True))
    assert scores.shape == (64,)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_inplace_activation_after_the_layer_does_not_change_its_scores(dense_data, dtype):
    x, y = dense_data[0].to(dtype), dense_data[1]
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)).to(dtype).eval()
    values = oracles.layer_values(model, model[0], x)
    assert (values < 0).any()
    scores = LayerMeanActivity(model, "0").attribute(x, target=y)
    np.testing.assert_allclose(scores.numpy(), oracles.mean_activity(values), atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_inplace_layer_has_its_own_input_scored(dense_data, dtype):
    x, y = dense_data[0].to(dtype), dense_data[1]
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)).to(dtype).eval()
    scores = LayerMeanActivity(model, "1").attribute(x, target=y, attribute_to_layer_input=True)
    with torch.no_grad():
        expected = model[0](x).double().mean(0)
    torch.testing.assert_close(scores, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("layer", ["conv2", "fc1"])
def test_one_sample_scores_what_captum_s_layer_activation_returns(digits_net, small_digits, layer):
    x, y = small_digits
    scores = LayerMeanActivity(digits_net, layer).attribute(x[:1], target=y[:1])
    activation = LayerActivation(digits_net, digits_net.get_submodule(layer)).attribute(x[:1])
    expected = activation.double().flatten(2).mean(2) if activation.ndim == 4 else activation.double()
    torch.testing.assert_close(scores, expected[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_activations_accumulate_in_float64(dtype):
    model = nn.Sequential(nn.Identity(), nn.Linear(2, 2, dtype=dtype)).eval()
    x = torch.full((5000, 2), 1.0078125, dtype=dtype)  # a sum in half precision would stop growing at 256 or 2048
    scores = LayerMeanActivity(model, "0").attribute(x, target=torch.arange(5000) % 2, batch_size=1000)
    assert scores.dtype == torch.float64
    torch.testing.assert_close(scores, x[0].double(), rtol=1e-12, atol=0)


def test_half_precision_positions_are_averaged_in_float64():
    model = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(4900, 2, dtype=torch.bfloat16)).eval()
    x = torch.full((4, 1, 70, 70), 1.0078125, dtype=torch.bfloat16)
    scores = LayerMeanActivity(model, "0").attribute(x, target=torch.tensor([0, 1, 0, 1]))
    torch.testing.assert_close(scores, x[0, :, 0, 0].double(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(16,), (1, 16, 1, 1)])
def test_layer_mask_joins_indices_into_one_unit(digits_net, small_digits, shape):
    x, y = small_digits
    groups = [0, 0, 1, 2] * 4
    mask = torch.tensor(groups).reshape(shape)
    scores = LayerMeanActivity(digits_net, "conv2", layer_mask=mask).attribute(x, target=y)
    values = oracles.grouped(oracles.layer_values(digits_net, digits_net.conv2, x), groups)
    assert scores.shape == (3,)
    np.testing.assert_allclose(scores.numpy(), oracles.mean_activity(values), atol=1e-9)


def test_layer_mask_with_keepdim_gives_each_index_the_score_of_its_group(digits_net, small_digits):
    x, y = small_digits
    mask = torch.tensor([0, 1] * 8)
    attribution = LayerMeanActivity(digits_net, "conv2", layer_mask=mask)
    scores = attribution.attribute(x, target=y)
    kept = attribution.attribute(x, target=y, keepdim=True)
    assert kept.shape == (1, 16, 1, 1)
    torch.testing.assert_close(kept.flatten(), scores[mask], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("layer", "unit_dim", "shape"),
    [
        ("conv2", 1, (1, 16, 1, 1)),
        ("conv2", -1, (1, 1, 1, 2)),
        ("conv2", None, (1, 16, 2, 2)),
        ("fc1", 1, (1, 24)),
    ],
)
def test_keepdim_broadcasts_against_the_layer_output(digits_net, small_digits, layer, unit_dim, shape):
    x, y = small_digits
    attribution = LayerMeanActivity(digits_net, layer, unit_dim=unit_dim)
    kept = attribution.attribute(x, target=y, keepdim=True)
    assert kept.shape == shape
    torch.testing.assert_close(kept.flatten(), attribution.attribute(x, target=y), rtol=0, atol=0)
    output = oracles.layer_output(digits_net, digits_net.get_submodule(layer), x)
    assert np.broadcast_shapes(output.shape, shape) == output.shape


def test_keepdim_with_per_class_puts_classes_first(digits_net, small_digits):
    x, y = small_digits
    attribution = LayerMeanActivity(digits_net, "conv2")
    kept = attribution.attribute(x, target=y, per_class=True, keepdim=True)
    assert kept.shape == (10, 16, 1, 1)
    flat = attribution.attribute(x, target=y, per_class=True)
    torch.testing.assert_close(kept[:, :, 0, 0], flat, rtol=0, atol=0)


def test_a_function_may_run_the_model(digits_net, small_digits):
    x, y = small_digits
    scores = LayerMeanActivity(lambda images: digits_net(images).softmax(1), digits_net.fc1).attribute(x, target=y)
    expected = LayerMeanActivity(digits_net, "fc1").attribute(x, target=y)
    torch.testing.assert_close(scores, expected, rtol=0, atol=0)


def test_a_hook_of_the_user_is_seen(dense, dense_data):
    x, y = dense_data
    before = LayerMeanActivity(dense, "0").attribute(x, target=y)
    handle = dense[0].register_forward_hook(lambda _, __, output: 2 * output)
    after = LayerMeanActivity(dense, "0").attribute(x, target=y)
    handle.remove()
    torch.testing.assert_close(after, 2 * before, rtol=1e-6, atol=1e-9)
