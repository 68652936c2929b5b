"""Measured single-unit deficits against a plain hook and a full forward pass for every unit."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from torch import nn

from captum_ablate import LayerUnitAblation

LAYERS = ["conv1", "relu1", "conv2", "relu3"]


def zeros(output):
    return torch.zeros_like(output)


def unit_means(output):
    """The mean of each unit over samples and positions, in the shape of the output."""
    dims = [d for d in range(output.ndim) if d != 1]
    return output.double().mean(dims, keepdim=True).to(output.dtype).expand_as(output)


@pytest.mark.parametrize("layer", LAYERS)
def test_unit_ablation_equals_a_plain_hook(digits_net, small_digits, layer):
    x, y = small_digits
    deficits = oracles.unit_ablation(digits_net, digits_net.get_submodule(layer), x, y.tolist(), zeros)
    scores = LayerUnitAblation(digits_net, layer).attribute(x, target=y)
    assert scores.dtype == torch.float64
    np.testing.assert_allclose(scores.numpy(), deficits.mean(0), atol=1e-5)


@pytest.mark.parametrize("metric", ["accuracy", "log_likelihood", "logit", "margin"])
def test_unit_ablation_equals_a_plain_hook_for_every_metric(digits_net, small_digits, metric):
    x, y = small_digits
    deficits = oracles.unit_ablation(digits_net, digits_net.relu3, x, y.tolist(), zeros, metric)
    scores = LayerUnitAblation(digits_net, "relu3", metric=metric).attribute(x, target=y)
    np.testing.assert_allclose(scores.numpy(), deficits.mean(0), atol=1e-5)


@pytest.mark.parametrize("layer", ["conv1", "relu3"])
def test_unit_ablation_by_the_mean_equals_a_plain_hook(digits_net, small_digits, layer):
    x, y = small_digits
    deficits = oracles.unit_ablation(digits_net, digits_net.get_submodule(layer), x, y.tolist(), unit_means)
    scores = LayerUnitAblation(digits_net, layer, reference="mean").attribute(x, target=y, batch_size=40)
    np.testing.assert_allclose(scores.numpy(), deficits.mean(0), atol=1e-5)


def test_unit_ablation_by_a_tensor_equals_a_plain_hook(digits_net, small_digits):
    x, y = small_digits
    reference = torch.linspace(-1, 1, 16)[:, None, None]  # broadcasts to one sample's output [16, 4, 4]
    deficits = oracles.unit_ablation(
        digits_net, digits_net.conv2, x, y.tolist(), lambda output: reference.expand_as(output)
    )
    scores = LayerUnitAblation(digits_net, "conv2", reference=reference).attribute(x, target=y)
    np.testing.assert_allclose(scores.numpy(), deficits.mean(0), atol=1e-5)


def test_unit_ablation_by_a_function_equals_a_plain_hook(digits_net, small_digits):
    x, y = small_digits
    scores = LayerUnitAblation(digits_net, "relu3", reference=lambda a, target: a / 2 - 0.1).attribute(x, target=y)
    deficits = oracles.unit_ablation(digits_net, digits_net.relu3, x, y.tolist(), lambda output: output / 2 - 0.1)
    np.testing.assert_allclose(scores.numpy(), deficits.mean(0), atol=1e-5)


def test_a_reference_that_keeps_the_activations_costs_nothing(digits_net, small_digits):
    x, y = small_digits
    scores = LayerUnitAblation(digits_net, "conv2", reference=lambda a, target: a).attribute(x, target=y)
    np.testing.assert_allclose(scores.numpy(), np.zeros(16), atol=1e-6)


def test_a_metric_of_the_user_is_measured(digits_net, small_digits):
    x, y = small_digits

    def top_probability(outputs, target):
        return outputs.softmax(1).amax(1)

    scores = LayerUnitAblation(digits_net, "relu3", metric=top_probability).attribute(x, target=y)
    with torch.no_grad():
        hidden = digits_net[:-1](x)
        expected = []
        for unit in range(24):
            ablated = hidden.clone()
            ablated[:, unit] = 0
            change = top_probability(digits_net.fc2(hidden), y) - top_probability(digits_net.fc2(ablated), y)
            expected.append(float(change.mean()))
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)


def test_unit_ablation_on_the_last_dim_of_a_token_layer():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Flatten(), nn.Linear(18, 3)).eval()
    x, y = torch.randn(20, 3, 4), torch.arange(20) % 3
    deficits = oracles.unit_ablation(model, model[1], x, y.tolist(), zeros, unit_dim=2)
    scores = LayerUnitAblation(model, "1", unit_dim=-1).attribute(x, target=y)
    np.testing.assert_allclose(scores.numpy(), deficits.mean(0), atol=1e-5)


def test_unit_dim_none_ablates_every_element_alone():
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)).eval()
    x, y = torch.randn(15, 1, 3, 3), torch.arange(15) % 3
    flat = oracles.unit_ablation(model, model[2], x, y.tolist(), zeros)  # flattened, each element is a unit
    scores = LayerUnitAblation(model, "1", unit_dim=None).attribute(x, target=y)
    np.testing.assert_allclose(scores.numpy(), flat.mean(0), atol=1e-5)


def test_a_group_is_ablated_together(dense, dense_data):
    x, y = dense_data
    groups = torch.tensor([0, 1, 1, 0, 2, 2])
    scores = LayerUnitAblation(dense, "3", layer_mask=groups).attribute(x, target=y)
    with torch.no_grad():
        hidden = dense[:4](x)
        intact = dense[4](hidden).log_softmax(1)[torch.arange(60), y]
        expected = [
            float((intact - dense[4](hidden * (groups != g)).log_softmax(1)[torch.arange(60), y]).mean())
            for g in range(3)
        ]
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)


def test_the_input_of_a_layer_is_ablated_as_the_output_of_the_one_before(digits_net, small_digits):
    x, y = small_digits
    at_input = LayerUnitAblation(digits_net, "conv2").attribute(x, target=y, attribute_to_layer_input=True)
    before = LayerUnitAblation(digits_net, "pool1").attribute(x, target=y)
    np.testing.assert_allclose(at_input.numpy(), before.numpy(), atol=1e-5)
    assert before.abs().max() > 1e-2


def test_each_tensor_of_a_tuple_output_is_ablated_alone(dense_data):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 4), nn.Linear(5, 6)

        def forward(self, x):
            return self.a(x), self.b(x)

    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.two, self.head = Two(), nn.Linear(10, 3)

        def forward(self, x):
            return self.head(torch.cat(self.two(x), dim=1).tanh())

    (x, y), model = dense_data, Joined().eval()
    scores = LayerUnitAblation(model, "two").attribute(x, target=y)
    assert isinstance(scores, tuple)
    for part, layer in zip(scores, (model.two.a, model.two.b), strict=True):
        deficits = oracles.unit_ablation(model, layer, x, y.tolist(), zeros)
        np.testing.assert_allclose(part.numpy(), deficits.mean(0), atol=1e-5)


def test_deficits_per_class_are_means_within_the_class(digits_net, small_digits):
    x, y = small_digits
    per_class = LayerUnitAblation(digits_net, "relu3").attribute(x, target=y, per_class=True)
    deficits = oracles.unit_ablation(digits_net, digits_net.relu3, x, y.tolist(), zeros)
    expected = [[np.mean(column[y.numpy() == c]) for column in deficits.T] for c in range(10)]
    assert per_class.shape == (10, 24)
    np.testing.assert_allclose(per_class.numpy(), expected, atol=1e-5)


def test_a_dead_unit_costs_nothing():
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    with torch.no_grad():
        model[0].weight[2] = 0
        model[0].bias[2] = -1
    scores = LayerUnitAblation(model, "1").attribute(torch.randn(30, 5), target=torch.arange(30) % 3)
    assert scores[2] == pytest.approx(0, abs=1e-7)
    assert (scores[[0, 1, 3, 4, 5]].abs() > 1e-5).all()


def test_unit_ablation_does_not_depend_on_the_batches(digits_net, small_digits):
    x, y = small_digits
    whole = LayerUnitAblation(digits_net, "conv2", reference="mean").attribute(x, target=y)
    batches = list(zip(x.split(37), y.split(37), strict=True))
    parts = LayerUnitAblation(digits_net, "conv2", reference="mean").attribute(batches)
    np.testing.assert_allclose(parts.numpy(), whole.numpy(), atol=1e-6)


def test_resampling_repeats_itself_and_does_not_depend_on_the_batches(dense, dense_data):
    x, y = dense_data
    attribution = LayerUnitAblation(dense, "1", reference="resample")
    whole = attribution.attribute(x, target=y)
    assert whole.abs().max() > 1e-3
    np.testing.assert_allclose(attribution.attribute(x, target=y).numpy(), whole.numpy(), atol=1e-9)
    np.testing.assert_allclose(attribution.attribute(x, target=y, batch_size=37).numpy(), whole.numpy(), atol=1e-6)


def test_a_function_that_runs_the_model_gives_the_same_deficits(digits_net, small_digits):
    x, y = small_digits
    by_function = LayerUnitAblation(lambda images: digits_net(images), digits_net.conv2).attribute(x, target=y)
    by_module = LayerUnitAblation(digits_net, "conv2").attribute(x, target=y)
    np.testing.assert_allclose(by_function.numpy(), by_module.numpy(), atol=1e-5)


def test_an_unknown_metric_or_reference_is_refused(dense, dense_data):
    x, y = dense_data
    with pytest.raises(ValueError, match=r"metric must be one of 'accuracy'.*got 'f1'"):
        LayerUnitAblation(dense, "0", metric="f1").attribute(x, target=y)
    with pytest.raises(ValueError, match=r"reference must be.*got 'median'"):
        LayerUnitAblation(dense, "0", reference="median").attribute(x, target=y)


def test_the_mean_is_that_of_the_layer_before_anything_changes_it_in_place(dense_data):
    x, y = dense_data
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)).eval()
    mean = model[0](x).detach().mean(0)
    by_name = LayerUnitAblation(model, "0", reference="mean").attribute(x, target=y)
    by_value = LayerUnitAblation(model, "0", reference=mean).attribute(x, target=y)
    np.testing.assert_allclose(by_name.numpy(), by_value.numpy(), atol=1e-6)
