"""The last layer: what it receives, and its retraining on frozen features."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from torch import nn

from captum_ablate import head_table, retrain_last_layer
from captum_ablate.diagnostics.retraining import STRENGTHS, last_linear


def blobs(n, classes, seed=0, scale=1.0, shift=0.0):
    g = torch.Generator().manual_seed(seed)
    target = torch.arange(n) % classes
    return scale * (torch.randn(n, 4, generator=g) + 2 * nn.functional.one_hot(target, 4)) + shift, target


@pytest.mark.parametrize("classes", [2, 3])
def test_balanced_data_give_scikit_learns_probabilities_on_raw_features(classes):
    """The standardisation is folded back: the layer equals a pipeline of scaler and regression."""
    features, target = blobs(90, classes, scale=30.0, shift=500.0)
    layer = retrain_last_layer(features, target, C=0.3)
    x = features.double().numpy()
    standardised = (x - x.mean(axis=0)) / x.std(axis=0)
    expected = LogisticRegression(C=0.3, tol=1e-8, max_iter=5000).fit(standardised, target).predict_proba(standardised)
    found = layer.double()(features.double()).softmax(dim=1).detach()
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)


def test_closed_form_of_a_feature_that_is_constant():
    """With no information the logits are those of balanced classes: equal, whatever the counts."""
    layer = retrain_last_layer(torch.full((30, 2), 7.0), torch.tensor([0] * 20 + [1] * 10), C=1.0)
    assert layer.weight.abs().max() == 0
    logits = layer(torch.tensor([[7.0, 7.0]]))[0]
    assert float((logits[0] - logits[1]).detach()) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("level", [1.0, -0.1, 3e5, 1e-6])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_feature_that_is_constant_up_to_rounding_gets_no_weight(level, dtype):
    """Logits equal the same fit in float64 without folding; weights stay of the size of the others."""
    features, target = blobs(120, 3)
    level = max(1e-4, min(level, 100.0)) if dtype == torch.float16 and level > 0 else level  # 65,504 ends its range
    generator = torch.Generator().manual_seed(1)
    noise = torch.finfo(dtype).eps * (torch.randint(0, 2, (120,), generator=generator, dtype=torch.float64) - 0.5)
    constant = (level * (1 + noise)).to(dtype)
    assert len(constant.unique()) > 1
    features = torch.cat([features.to(dtype), constant[:, None]], dim=1)
    layer = retrain_last_layer(features, target, C=1.0)
    assert layer.weight[:, 4].abs().max() == 0
    assert layer.weight.abs().max() < 10
    x = features.double().numpy()
    standardised = (x - x.mean(axis=0)) / x.std(axis=0)
    standardised[:, 4] = 0
    fitted = LogisticRegression(C=1.0, tol=1e-9, max_iter=5000).fit(standardised, target)
    found = layer(features.float()).detach().double().numpy()
    np.testing.assert_allclose(found, fitted.decision_function(standardised), atol=1e-3)


@pytest.mark.parametrize("ratio", [1e-4, 1e-2])
def test_features_far_from_zero_keep_the_logits_of_the_fit_in_float64(ratio):
    features, target = blobs(120, 3)
    features = 1000 + 1000 * ratio * features
    x = features.double().numpy()
    standardised = (x - x.mean(axis=0)) / x.std(axis=0)
    fitted = LogisticRegression(C=1.0, tol=1e-9, max_iter=5000).fit(standardised, target)
    layer = retrain_last_layer(features, target, C=1.0)
    exact = features.double() @ layer.weight.double().T + layer.bias.double()
    np.testing.assert_allclose(exact.detach(), fitted.decision_function(standardised), atol=1e-3 + 3e-7 / ratio)
    np.testing.assert_allclose(
        layer(features).detach(), fitted.decision_function(standardised), atol=1e-3 + 3e-6 / ratio
    )


def test_draws_balance_the_classes():
    """Nine in ten of one class: a fit to all of it has an offset of about log 9, the balanced one has none."""
    g = torch.Generator().manual_seed(0)
    features, target = torch.randn(2000, 1, generator=g), (torch.arange(2000) < 200).long()
    layer = retrain_last_layer(features, target, C=1.0)
    offset = float((layer.bias[0] - layer.bias[1]).detach())
    assert abs(offset) < 0.3 < log(9)
    averaged = retrain_last_layer(features, target, C=1.0, draws=30).bias.detach()
    one = [retrain_last_layer(features, target, C=1.0, draws=1, seed=s).weight.detach() for s in range(2)]
    assert not torch.equal(*one)  # each draw is another subset
    assert averaged.shape == (2,)


def test_cross_validation_chooses_as_scikit_learns_grid_search_does():
    """Pure noise asks for a stronger penalty than separable data."""
    g = torch.Generator().manual_seed(0)
    target, chosen = torch.arange(80) % 2, []
    for features in (torch.randn(80, 20, generator=g), target[:, None] * 8.0 + torch.randn(80, 2, generator=g)):
        x = ((features - features.mean(0)) / features.std(0, correction=0)).numpy()
        search = GridSearchCV(
            LogisticRegression(max_iter=500),
            {"C": STRENGTHS},
            scoring="neg_log_loss",
            cv=StratifiedKFold(3, shuffle=True, random_state=0),
        ).fit(x, target.numpy())
        chosen.append(search.best_params_["C"])
        expected = retrain_last_layer(features, target, C=chosen[-1])
        torch.testing.assert_close(retrain_last_layer(features, target).weight, expected.weight)
    assert chosen[0] < chosen[1]


def test_retraining_leaves_the_random_state_and_repeats():
    features, target = blobs(50, 3)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  the user's state
    one, two = (retrain_last_layer(features, target) for _ in range(2))
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002  the same
    assert (one.in_features, one.out_features) == (4, 3)


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((torch.zeros(4), [0, 1, 0, 1]), {}, r"features must be \[n, d\]"),
        ((torch.zeros(4, 2), [0, 1, 0]), {}, "got lengths: features 4, target 3"),
        ((torch.zeros(4, 2), [0, 2, 0, 2]), {}, "class 1 has none"),
        ((torch.zeros(4, 2), [0, 0, 0, 0]), {}, "separates two or more classes"),
        ((torch.zeros(4, 2), [-1, 0, 1, 1]), {}, r"labels must be 0\.\.k-1"),
        ((torch.zeros(4, 2), [0, 1, 0, 1]), {"C": 0.0}, "C must be positive"),
        ((torch.zeros(4, 2), [0, 1, 0, 1]), {"draws": 0}, "draws must be at least 1"),
        ((torch.zeros(4, 2), [0, 0, 0, 1]), {}, "cross-validation of C needs at least 2 samples"),
    ],
)
def test_retraining_refuses(arguments, options, text):
    with pytest.raises(ValueError, match=text):
        retrain_last_layer(*arguments, **options)


class Headed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.dropout(self.body(x)))


def test_head_table_holds_features_logits_and_labels_in_order():
    model = Headed().eval()
    x, y = torch.randn(23, 5), torch.randint(0, 3, (23,))
    table = head_table(model, "head", [(x[:10], y[:10]), (x[10:], y[10:])])
    torch.testing.assert_close(table.features, model.body(x).detach())
    torch.testing.assert_close(table.logits, model(x).detach())
    assert torch.equal(table.target, y)
    assert not model.head._forward_pre_hooks
    assert last_linear(model) == "head"
    model.head = retrain_last_layer(table.features, torch.arange(23) % 3, C=1.0)
    assert model(x).shape == (23, 3)


def test_head_table_refuses_what_is_no_last_linear_layer():
    model, data = Headed().eval(), (torch.randn(4, 5), torch.tensor([0, 1, 2, 0]))
    with pytest.raises(TypeError, match=r"head must be the last linear layer.*'body\.1' is a ReLU"):
        head_table(model, "body.1", data)
    with pytest.raises(ValueError, match="no layer 'tail'"):
        head_table(model, "tail", data)
    with pytest.raises(ValueError, match="training mode"):
        head_table(model.train(), "head", data)
    tokens = nn.Sequential(nn.Linear(5, 3)).eval()
    with pytest.raises(ValueError, match=r"one row of features per sample, \[n, d\]; got \(2, 6, 5\) for 2 samples"):
        head_table(tokens, "0", (torch.randn(2, 6, 5), torch.tensor([0, 1])))
    with pytest.raises(ValueError, match="has no linear layer"):
        last_linear(nn.Sequential(nn.ReLU()))
