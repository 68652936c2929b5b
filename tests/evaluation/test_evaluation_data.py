"""Data, labels and metrics of a user's: the forms they come in, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import oracles
import pytest
import torch
from captum.attr import LayerConductance, LayerGradientXActivation
from curve_checks import METRICS, SCORES, close, same
from torch import nn

from captum_ablate import (
    Batch,
    CumulativeAblationEvaluator,
    LayerClassSelectivity,
    LayerLinearProbe,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerTaylor,
    LayerUnitAblation,
)


def test_one_shot_generators_are_refused_for_evaluation_and_fine_for_ranking(dense, dense_data):
    x, y = dense_data

    def stream():
        return ((a, b) for a, b in zip(x.split(20), y.split(20), strict=True))

    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=2)
    batches = stream()
    with pytest.raises(ValueError, match=r"one-shot generator.*pass a list of batches, a DataLoader"):
        evaluator.evaluate(SCORES, batches)
    assert len(list(batches)) == 3  # nothing of it was used
    method = LayerConductance(dense, dense[2])
    same(
        evaluator.evaluate(method, dense_data, ranking_data=stream()),
        evaluator.evaluate(method, dense_data, ranking_data=dense_data),
        exact=False,
    )
    with pytest.raises(ValueError, match=r"one-shot generator.*Unit Ablation"):
        evaluator.evaluate(LayerUnitAblation(dense, "2"), dense_data, ranking_data=stream())


def test_all_forms_of_data_and_labels_give_the_same_curve(dense, dense_data):
    x, y = dense_data
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=2, metric="logit")
    expected = evaluator.evaluate(SCORES, (x, y))
    dicts = [{"x": a, "y": b} for a, b in zip(x.split(25), y.split(25), strict=True)]
    for data in ((x, y.tolist()), (x, y.numpy()), (x, y[:, None].int()), ((x,), y), Batch((x,), y), [(x, y)]):
        same(evaluator.evaluate(SCORES, data), expected, exact=False)
    found = evaluator.evaluate(SCORES, dicts, unpack_batch=lambda d: Batch((d["x"],), d["y"]))
    same(found, expected, exact=False)


def test_additional_arguments_reach_the_model(dense, dense_data):
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = dense

        def forward(self, x, by, scale):
            return self.net((x + by) * scale)

    x, y = dense_data
    by = torch.randn(60, 5)
    evaluator = CumulativeAblationEvaluator(Shifted().eval(), "net.2", n_random=2, metric="logit")
    own = evaluator.evaluate(
        LayerGradientXActivation(evaluator.forward_func, dense[2]), Batch((x,), y, (by, 2.0)), batch_size=17
    )
    plain = CumulativeAblationEvaluator(dense, "2", n_random=2, metric="logit")
    expected = plain.evaluate(LayerGradientXActivation(dense, dense[2]), ((x + by) * 2, y), batch_size=17)
    close(own.scores, expected.scores)
    same(own, expected, exact=False)


@pytest.mark.parametrize("data", [[], [(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long))]])
def test_an_empty_data_set_is_refused(dense, dense_data, data):
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0)
    with pytest.raises(ValueError, match="data set is empty"):
        evaluator.evaluate(SCORES, data)
    with pytest.raises(ValueError, match="data set is empty"):
        evaluator.evaluate(LayerMeanActivity(dense, "2"), dense_data, ranking_data=data)


def test_one_class_only_is_evaluated_as_any_other_data(dense):
    x, one = torch.randn(9, 5), torch.ones(9, dtype=torch.long)
    evaluator = CumulativeAblationEvaluator(dense, "2", n_random=0, steps=None, reference="zero")
    curve = evaluator.evaluate(SCORES, (x, one))
    order = SCORES.argsort(descending=True)
    expected = oracles.ablation_values(dense, dense[2], x, one, order.tolist(), range(7), lambda a: a * 0)
    np.testing.assert_allclose(curve.values.double().numpy(), expected, atol=1e-6)


def test_an_attribution_that_compares_classes_fails_alone_on_one_class(dense):
    one = (torch.randn(9, 5), torch.ones(9, dtype=torch.long))
    methods = {"t": SCORES, "a": LayerMeanActivity(dense, "2"), "s": LayerClassSelectivity(dense, "2")}
    comparison = CumulativeAblationEvaluator(dense, "2", n_random=0).compare(methods, one)
    assert list(comparison.failed) == ["s"]
    assert re.search(r"one class only \(label 1\).*two or more", comparison.failed["s"])
    assert set(comparison.curves) == {"t", "a"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "labels of batch 0 are missing|target"),
        (torch.rand(60, 3), r"one integer class per sample.*Soft labels"),
        (torch.zeros(60), r"one integer class per sample"),
        (torch.arange(59), r"59 labels for inputs of shape \(60, 5\)"),
    ],
    ids=["none", "soft", "float", "short"],
)
def test_labels_that_are_no_classes_are_refused(dense, dense_data, target, message):
    with pytest.raises(ValueError, match=message):
        CumulativeAblationEvaluator(dense, "2").evaluate(SCORES, (dense_data[0], target))


def test_labels_beyond_the_outputs_are_refused(dense, dense_data):
    x, y = dense_data
    for metric in METRICS:
        evaluator = CumulativeAblationEvaluator(dense, "2", metric=metric, n_random=0)
        with pytest.raises(ValueError, match=r"labels must be 0\.\.2, the indices of the model's 3 outputs; got 4"):
            evaluator.evaluate(SCORES, (x, torch.where(y == 2, 4, y)))
    free = CumulativeAblationEvaluator(dense, "2", metric=lambda outputs, _: outputs[:, 0], n_random=0)
    assert free.evaluate(SCORES, (x, y + 40)).classes.tolist() == [40, 41, 42]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda o, t: o, r"metric must return one value per sample, \[60\]; got \(60, 3\)"),
        (lambda o, t: o.mean(), r"metric must return one value per sample, \[60\]; got \(\)"),
        (lambda o, t: 0.5, r"metric must return one value per sample, \[60\]; got float"),
        (lambda o, t: o[:, 0] / 0, "the metric is NaN or infinite"),
    ],
)
def test_a_metric_of_another_shape_or_not_finite_is_refused(dense, dense_data, metric, message):
    with pytest.raises(ValueError, match=message):
        CumulativeAblationEvaluator(dense, "2", metric=metric, n_random=0).evaluate(SCORES, dense_data)


def test_a_metric_that_raises_tells_its_own_error(dense, dense_data):
    def broken(outputs, target):
        raise ZeroDivisionError("my metric")

    with pytest.raises(ZeroDivisionError, match="my metric"):
        CumulativeAblationEvaluator(dense, "2", metric=broken, n_random=0).evaluate(SCORES, dense_data)


@pytest.mark.parametrize("kind", [lambda o, t: o.argmax(1) == t, lambda o, t: (o.argmax(1) == t).int()])
def test_a_metric_may_return_truth_or_integers(dense, dense_data, kind):
    curve = CumulativeAblationEvaluator(dense, "2", metric=kind, n_random=0).evaluate(SCORES, dense_data)
    expected = CumulativeAblationEvaluator(dense, "2", n_random=0).evaluate(SCORES, dense_data)
    assert torch.equal(curve.values, expected.values)


@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_a_loader_may_fill_the_same_memory_again(batch_size):
    """Labels too are kept after their batch, until many are counted at once."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x, y = torch.randn(30, 5), torch.arange(30) % 3

    class OneMemory:
        def __iter__(self):
            inputs, labels = torch.empty(batch_size, 5), torch.empty(batch_size, dtype=torch.long)
            for start in range(0, 30, batch_size):
                n = min(batch_size, 30 - start)
                inputs[:n], labels[:n] = x[start : start + n], y[start : start + n]
                yield inputs[:n], labels[:n]

    methods = [
        LayerClassSelectivity(model, "1"),
        LayerMutualInformation(model, "1", bins=4),
        LayerLinearProbe(model, "1", C=1.0),
        LayerTaylor(model, "1"),
    ]
    for method in methods:
        whole = method.attribute(x, target=y)
        torch.testing.assert_close(method.attribute(OneMemory()), whole, rtol=1e-5, atol=1e-5)
        curves = [
            CumulativeAblationEvaluator(model, "1").evaluate(method, data, ranking_resamples=3)
            for data in (OneMemory(), (x, y))
        ]
        assert torch.equal(curves[0].target, y)
        torch.testing.assert_close(curves[0].resampled_areas, curves[1].resampled_areas)
