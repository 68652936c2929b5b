"""Weight norm, activation norm and Taylor estimate against plain loops, on the shapes that networks have."""

from __future__ import annotations

import copy

import numpy as np
import oracles
import pytest
import torch
from pruning_networks import CASES, Concatenated, Residual, Transformer, conv, mlp
from torch import nn

from captum_ablate import (
    CumulativeAblationEvaluator,
    LayerActivationNorm,
    LayerDatasetAttribution,
    LayerTaylor,
    LayerWeightNorm,
    attribute_together,
)

each_case = pytest.mark.parametrize("name", CASES)
LABELS = torch.arange(6) % 3


def close(found, expected, rtol=1e-6):
    np.testing.assert_allclose(np.asarray(found), expected, rtol=rtol, atol=1e-9)
    assert float(np.abs(expected).max()) > 1e-3


def expected_norms(case, model=None, layer=None, **options):
    model = case.model if model is None else model
    layer = model.get_submodule(layer or case.layer)
    consumers = [model.get_submodule(name) for name in case.consumers]
    return oracles.weight_norm(model, layer, case.inputs, consumers, **{"unit_dim": case.unit_dim, **options})


@each_case
def test_weight_norm_is_that_of_the_weights_that_a_unit_changes_the_inputs_of(name):
    case = CASES[name]
    attribution = LayerWeightNorm(case.model, case.layer, unit_dim=case.unit_dim)
    found = attribution.attribute(case.inputs, target=LABELS)
    close(found, expected_norms(case))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in case.model.modules())


def test_weight_norm_needs_neither_labels_of_two_classes_nor_more_than_a_batch():
    case = CASES["mlp"]

    def batches():
        yield case.inputs, torch.zeros(6, dtype=torch.long)
        raise AssertionError("a second batch was taken")

    close(LayerWeightNorm(case.model, case.layer).attribute(batches()), expected_norms(case))


def test_weight_norm_of_elements_and_of_groups():
    case = CASES["grouped conv, flattened"]
    elements = LayerWeightNorm(case.model, "5", unit_dim=None).attribute(case.inputs, target=LABELS)
    close(elements, oracles.weight_norm(case.model, case.model[6], case.inputs, [case.model[7]]))
    groups = torch.tensor([0, 1, 1, 0, 2, 2])
    units = expected_norms(case)
    joined = LayerWeightNorm(case.model, "5", layer_mask=groups).attribute(case.inputs, target=LABELS)
    close(joined, [np.sqrt(sum(units[groups == g] ** 2)) for g in range(3)])


def test_weight_norm_of_the_layers_input():
    case = CASES["mlp"]
    found = LayerWeightNorm(case.model, "3").attribute(case.inputs, target=LABELS, attribute_to_layer_input=True)
    close(found, expected_norms(case, layer="3", at_input=True))
    close(found, LayerWeightNorm(case.model, "2").attribute(case.inputs, target=LABELS).numpy())


def test_the_last_layer_has_its_own_weights():
    model, x = mlp().eval(), torch.randn(6, 5)
    rows = model[5].weight.detach().double()
    close(LayerWeightNorm(model, "5").attribute(x, target=LABELS), [np.sqrt(sum(w**2)) for w in rows.numpy()])
    images = torch.randn(6, 1, 8, 8)
    last = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 3, groups=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    rows = last[1].weight.detach().double().flatten(1).numpy()
    for layer in ("1", "2", "3", "4"):
        found = LayerWeightNorm(last.eval(), layer).attribute(images, target=LABELS)
        close(found, [np.sqrt(sum(w**2)) for w in rows])
    elements = LayerWeightNorm(last, "1", unit_dim=None).attribute(images, target=LABELS)
    close(elements.reshape(3, 16), np.repeat([[np.sqrt(sum(w**2))] for w in rows], 16, axis=1))
    pair = LayerWeightNorm(last, "1", layer_mask=torch.tensor([0, 1, 0])).attribute(images, target=LABELS)
    close(pair, [np.sqrt((rows[[0, 2]] ** 2).sum()), np.sqrt((rows[1] ** 2).sum())])
    transposed = nn.Sequential(nn.ConvTranspose2d(1, 6, 3), nn.ConvTranspose2d(6, 4, 3, groups=2), nn.Flatten(2)).eval()
    weight = transposed[1].weight.detach().double().numpy()  # [in, out / groups, 3, 3]
    expected = [np.sqrt((weight[3 * (u // 2) : 3 * (u // 2) + 3, u % 2] ** 2).sum()) for u in range(4)]
    close(LayerWeightNorm(transposed, "1").attribute(images, target=LABELS), expected)


def test_softmax_after_the_last_layer_does_not_matter():
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.Softmax(1)).eval()
    found = LayerWeightNorm(model, "2").attribute(torch.randn(6, 5), target=LABELS)
    close(found, model[2].weight.detach().double().norm(dim=1).numpy())


def test_weights_that_are_shared_count_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.shared = nn.Linear(5, 4), nn.Linear(4, 3)

        def forward(self, x):
            h = self.first(x)
            return self.shared(h) + self.shared(torch.relu(h))

    model = Twice().eval()
    found = LayerWeightNorm(model, "first").attribute(torch.randn(6, 5), target=LABELS)
    close(found, model.shared.weight.detach().double().norm(dim=0).numpy())


@pytest.mark.parametrize("product", ["functional", "matmul", "addmm", "normalised"])
def test_weights_need_no_module_of_their_own(product):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.weight, self.bias = (
                nn.Linear(5, 4),
                nn.Parameter(torch.randn(3, 4)),
                nn.Parameter(torch.rand(3)),
            )
            self.turned = nn.Parameter(self.weight.detach().T.clone())
            self.normalised = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
            self.normalised.weight = self.weight.detach()

        def forward(self, x):
            h = torch.relu(self.first(x))
            if product == "normalised":
                return self.normalised(h)
            if product == "functional":
                return nn.functional.linear(h, self.weight)
            return h @ self.turned if product == "matmul" else torch.addmm(self.bias, h, self.turned)

    model = Head().eval()
    expected = model.weight.detach().double().norm(dim=0).numpy()
    x = torch.randn(6, 5)
    close(LayerWeightNorm(model, "first").attribute(x, target=LABELS), expected)
    close(LayerWeightNorm(lambda x: model(x), model.first).attribute(x, target=LABELS), expected)


@pytest.mark.parametrize(
    ("make", "layer", "unit_dim", "message"),
    [
        (Transformer, "block.fc2", -1, "units of layer 'block.fc2' are mixed before they reach the next weights"),
        (Transformer, "block.qkv", -1, r"mixed before they reach the next weights \(linear with weights \(8, 8\)\)"),
        (lambda: nn.Sequential(nn.ReLU(), nn.Tanh()), "0", 1, r"no Linear or Conv module after it or before it"),
        (
            lambda: nn.Sequential(nn.Linear(5, 4), nn.Softmax(-1)),
            "1",
            1,
            r"do not each come from one output of the last weights before it \(linear with weights \(4, 5\)\)",
        ),
        (lambda: nn.Sequential(nn.Linear(5, 4), nn.GRU(4, 3, batch_first=True)), "0", -1, "go into gru, whose weights"),
    ],
)  # fmt: skip
def test_units_without_weights_of_their_own_are_refused(make, layer, unit_dim, message):
    model = make().eval()
    x = torch.randn(6, 4, 5) if unit_dim == -1 else torch.randn(6, 5)
    with pytest.raises(ValueError, match=message):
        LayerWeightNorm(model, layer, unit_dim=unit_dim).attribute(x, target=LABELS)


@each_case
def test_activation_norm_is_the_norm_over_samples_and_positions_times_that_of_the_weights(name):
    case = CASES[name]
    attribution = LayerActivationNorm(case.model, case.layer, unit_dim=case.unit_dim)
    output = oracles.layer_output(case.model, case.model.get_submodule(case.layer), case.inputs)
    weights = expected_norms(case)
    expected = oracles.activation_norms(output, case.unit_dim) * weights
    close(attribution.attribute(case.inputs, target=LABELS, batch_size=4), expected)
    per_class = attribution.attribute(case.inputs, target=LABELS, per_class=True)
    rows = [oracles.activation_norms(output[c == LABELS], case.unit_dim) * weights for c in range(3)]
    close(per_class, np.stack(rows))


@each_case
@pytest.mark.filterwarnings("ignore:.*makes its:UserWarning")
def test_taylor_is_the_mean_absolute_slope_in_a_gate_on_the_unit(name):
    case = CASES[name]
    slopes = oracles.gate_slopes(case.model, case.layer, case.inputs, LABELS.tolist(), case.unit_dim)
    attribution = LayerTaylor(case.model, case.layer, unit_dim=case.unit_dim)
    found = attribution.attribute(case.inputs, target=LABELS, batch_size=4)
    np.testing.assert_allclose(found, np.abs(slopes).mean(0), atol=2e-6)
    assert float(found.max()) > 1e-4
    per_class = attribution.attribute(case.inputs, target=LABELS, per_class=True)
    np.testing.assert_allclose(per_class, [np.abs(slopes[c == LABELS]).mean(0) for c in range(3)], atol=2e-6)


def test_taylor_of_frozen_networks_of_a_list_and_of_the_input():
    model, x = mlp().eval().requires_grad_(False), torch.randn(6, 5)
    first, second = LayerTaylor(model, ["0", "4"]).attribute(x, target=LABELS)
    np.testing.assert_allclose(first, np.abs(oracles.gate_slopes(model, "0", x, LABELS.tolist())).mean(0), atol=1e-6)
    np.testing.assert_allclose(second, np.abs(oracles.gate_slopes(model, "4", x, LABELS.tolist())).mean(0), atol=1e-6)
    at_input = LayerTaylor(model, "5").attribute(x, target=LABELS, attribute_to_layer_input=True)
    np.testing.assert_allclose(at_input, second, atol=1e-12)
    with torch.no_grad():
        np.testing.assert_array_equal(LayerTaylor(model, "4").attribute(x, target=LABELS), second)


def test_taylor_leaves_no_gradients_and_no_hooks():
    model, x = mlp().eval(), torch.randn(6, 5)
    LayerTaylor(model, "0").attribute(x, target=LABELS)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_taylor_of_units_that_do_not_matter_is_zero():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(5, 3), nn.Linear(5, 4)

        def forward(self, x):
            self.unused(x)
            return self.used(x)

    found = LayerTaylor(Unused().eval(), "unused").attribute(torch.randn(6, 5), target=LABELS)
    assert torch.equal(found, torch.zeros(4, dtype=torch.float64))


def test_a_subclass_may_have_gradients_as_its_source(dense, dense_data):
    class LayerSignedTaylor(LayerDatasetAttribution):
        source = "gradients"

        def score(self, products):
            return products.mean

    x, y = dense_data
    found = LayerSignedTaylor(dense, "1").attribute(x, target=y)
    slopes = oracles.gate_slopes(dense, "1", x, y.tolist())
    np.testing.assert_allclose(found, slopes.mean(0), atol=1e-6)


@pytest.mark.parametrize("make", [Residual, conv])
def test_they_are_compared_and_attributed_together(make, digits):
    model, layer = make().eval(), "act" if make is Residual else "2"
    data = digits[0][:30], digits[1][:30] % 3
    methods = {
        "weights": LayerWeightNorm(model, layer),
        "Taylor": LayerTaylor(model, layer),
        "activations": LayerActivationNorm(model, layer),
    }
    before = copy.deepcopy(model.state_dict())
    comparison = CumulativeAblationEvaluator(model, layer, n_random=2, steps=2).compare(methods, data, batch_size=9)
    together = attribute_together(methods, *data, batch_size=9)
    assert list(comparison.curves) == list(methods) == list(together)
    for name, method in methods.items():
        alone = method.attribute(data[0], target=data[1])
        torch.testing.assert_close(comparison[name].scores, alone)
        torch.testing.assert_close(together[name], alone)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_weight_norm_that_fails_leaves_the_others(digits):
    model = Transformer().eval()
    x, y = torch.randn(12, 4, 5), torch.arange(12) % 3
    evaluator = CumulativeAblationEvaluator(model, "block.fc2", unit_dim=-1, n_random=0, steps=2)
    methods = {
        "weights": LayerWeightNorm(model, "block.fc2", unit_dim=-1),
        "Taylor": LayerTaylor(model, "block.fc2", unit_dim=-1),
    }
    comparison = evaluator.compare(methods, (x, y))
    assert list(comparison.curves) == ["Taylor"]
    assert "mixed before they reach the next weights" in comparison.failed["weights"]


def test_norms_of_concatenated_branches_are_those_of_their_own_columns():
    model, x = Concatenated().eval(), torch.randn(6, 5)
    weight = model.head.weight.detach().double()
    a = LayerWeightNorm(model, "a").attribute(x, target=LABELS)
    close(a, torch.cat([weight[:, :3], weight[:, 7:]]).norm(dim=0).numpy())


class Hidden(nn.Module):
    """A layer whose units reach the next weights by a way that NaN does not show."""

    def __init__(self, way):
        super().__init__()
        self.a, self.l, self.b, self.c = nn.Linear(5, 6), nn.Identity(), nn.Linear(6, 3), nn.Linear(6, 3)
        self.way = way

    def forward(self, x):
        return self.way(self, self.l(self.a(x)))


@pytest.mark.parametrize(
    "way",
    [
        lambda m, h: m.b(torch.where(h > 0, h, 0.0)),
        lambda m, h: m.b(h.nan_to_num()),
        lambda m, h: m.b((h > 0).float()),
        lambda m, h: m.b(h.sign()),
        lambda m, h: (m.b.weight.t().t() @ h.t()).t(),
        lambda m, h: h[:, :3] @ m.b.weight.t()[:3] + h[:, 3:] @ m.b.weight.t()[3:],
        lambda m, h: (h[:, None] * m.b.weight.detach()).sum(-1),
        lambda m, h: m.b(torch.where(h > 0, h, 0.0)) + m.c(h),
        lambda m, h: m.b(h) + torch.einsum("nu,ku->nk", h, m.c.weight),
        lambda m, h: m.b(h) + (m.c.weight.detach() @ h.t()).t(),
    ],
    ids=["where", "nan_to_num", "comparison", "sign", "product", "slices", "sum", "one branch", "einsum", "beside"],
)
@pytest.mark.parametrize("cls", [LayerWeightNorm, LayerActivationNorm])
def test_weights_that_cannot_be_followed_are_refused_not_left_out(way, cls):
    torch.manual_seed(3)
    model, x, y = Hidden(way).eval(), torch.randn(8, 5), torch.arange(8) % 3
    with pytest.raises(ValueError, match=r"units of layer 'l'"):
        cls(model, "l").attribute(x, target=y)


def test_the_last_layer_still_has_the_weights_that_make_it():
    model, x, y = (
        nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).eval(),
        torch.randn(8, 5),
        torch.arange(8) % 3,
    )
    found = LayerWeightNorm(model, "2").attribute(x, target=y)
    torch.testing.assert_close(found, model[2].weight.detach().double().norm(dim=1))
