"""With a metric of one's own the target is whatever the metric takes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from captum.attr import LayerConductance
from torch import nn

from captum_ablate import (
    Batch,
    Comparison,
    CumulativeAblationEvaluator,
    LayerClassSelectivity,
    LayerEntropy,
    LayerMeanActivity,
    LayerTaylor,
    LayerUnitAblation,
    unit_scores,
)

N = 20


def squares(outputs, target):
    return -((outputs.reshape(len(outputs), -1) - target.reshape(len(target), -1).to(outputs)) ** 2).mean(1)


def iou(outputs, target):
    assert target.dtype == torch.bool
    return ((outputs > 0) == target).flatten(1).float().mean(1)


def pairs(outputs, target):
    return outputs.gather(1, target[:, :1])[:, 0] - outputs.gather(1, target[:, 1:])[:, 0]


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(N, 6)


def dense(outputs):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, outputs)).eval()


def masks():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 12), nn.Unflatten(1, (3, 4))).eval()


TARGETS = {
    "regression": (lambda: dense(1), squares, torch.linspace(0, 1, N)),
    "columns": (lambda: dense(1), squares, torch.linspace(0, 1, N)[:, None]),
    "two": (lambda: dense(2), squares, torch.linspace(0, 1, 2 * N).reshape(N, 2)),
    "numpy": (lambda: dense(2), squares, np.linspace(0, 1, 2 * N).reshape(N, 2)),
    "series": (lambda: dense(1), squares, pd.Series(np.linspace(0, 1, N), index=range(7, 7 + N))),
    "frame": (lambda: dense(2), squares, pd.DataFrame(np.linspace(0, 1, 2 * N).reshape(N, 2))),
    "list": (lambda: dense(1), squares, [k / N for k in range(N)]),
    "masks": (masks, iou, torch.arange(12 * N).reshape(N, 3, 4) % 3 == 0),
    "pairs": (lambda: dense(3), pairs, torch.stack([torch.arange(N) % 3, torch.arange(1, N + 1) % 3], 1)),
}


def by_hand(net, metric, x, target, order):
    """The metric with the first k units of ``order`` at zero, for each k."""
    target = torch.as_tensor(np.asarray(target))
    rows = []
    for k in range(len(order) + 1):
        h = net[1](net[0](x)).clone()
        h[:, order[:k]] = 0
        rows.append(metric(net[2:](h), target))
    return torch.stack(rows).detach()


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("batch_size", [None, 7])
def test_the_evaluator_takes_any_target(x, kind, batch_size, tmp_path):
    make, metric, target = TARGETS[kind]
    net = make()
    evaluator = CumulativeAblationEvaluator(net, "1", metric=metric, n_random=2, steps=None)
    methods = {
        "ready": torch.arange(7.0),
        "activity": LayerMeanActivity(net, "1"),
        "ablation": LayerUnitAblation(net, "1", metric=metric),
        "selectivity": LayerClassSelectivity(net, "1"),
    }
    found = evaluator.compare(methods, (x, target), batch_size=batch_size)
    expected = by_hand(net, metric, x, target, found["ready"].order.tolist())
    torch.testing.assert_close(found["ready"].values.to(expected), expected, rtol=1e-5, atol=1e-5)
    activity = LayerMeanActivity(net, "1").attribute(x, target=torch.arange(N) % 2)
    torch.testing.assert_close(found["activity"].scores, activity)
    single = LayerUnitAblation(net, "1", metric=metric).attribute(x, target=target)
    torch.testing.assert_close(found["ablation"].scores, single, rtol=1e-4, atol=1e-6)
    assert "selectivity" not in found
    assert "one integer class per sample" in found.failed["selectivity"]
    assert str(found)
    found.save(tmp_path / "run")
    assert torch.equal(Comparison.load(tmp_path / "run")["ready"].target, found["ready"].target)


@pytest.mark.parametrize("kind", ["regression", "two", "masks"])
def test_classes_are_asked_for_where_they_are_needed(x, kind):
    make, metric, target = TARGETS[kind]
    net = make()
    with pytest.raises(ValueError, match=r"one integer class per sample, \[n\].*or ablate with metric=f"):
        CumulativeAblationEvaluator(net, "1").evaluate(torch.rand(7), (x, target))
    with pytest.raises(ValueError, match="one integer class per sample"):
        LayerMeanActivity(net, "1").attribute(x, target=target)
    curve = CumulativeAblationEvaluator(net, "1", metric=metric, n_random=2).evaluate(torch.rand(7), (x, target))
    with pytest.raises(ValueError, match="one integer class per sample"):
        _ = curve.classes


def test_methods_of_captum_say_which_output(x):
    net, metric, target = dense(2), squares, TARGETS["two"][2]
    attribution = LayerConductance(net, net[1])
    evaluator = CumulativeAblationEvaluator(net, "1", metric=metric, n_random=2)
    methods = {
        "first": partial(unit_scores, attribution, target=0),
        "prediction": partial(unit_scores, attribution, target="prediction"),
        "label": attribution,
        "taylor": LayerTaylor(net, "1"),
        "likelihood": LayerUnitAblation(net, "1"),
        "entropy": LayerEntropy(net, "1"),
    }
    found = evaluator.compare(methods, (x, target))
    assert list(found) == ["first", "prediction", "entropy"] or set(found) == {"first", "prediction", "entropy"}
    torch.testing.assert_close(found["first"].scores, unit_scores(attribution, (x, torch.arange(N) % 2), target=0))
    torch.testing.assert_close(found["first"].scores, unit_scores(attribution, (x, target), target=0))
    assert (
        "say which output: functools.partial(unit_scores, LayerConductance(model, layer), target=0)"
        in found.failed["label"]
    )
    assert "one integer class per sample" in found.failed["taylor"]
    assert "one integer class per sample" in found.failed["likelihood"]


def test_estimate_and_until_take_any_target(x):
    make, metric, target = TARGETS["masks"]
    net = make()
    bounded = partial(metric)
    bounded.bounds = (0.0, 1.0)
    evaluator = CumulativeAblationEvaluator(net, "1", metric=bounded, n_random=2)
    assert evaluator.estimate({"ready": torch.rand(7)}, (x, target)).batches == 1
    found = evaluator.compare({"ready": torch.arange(7.0)}, (x, target), until=0.001)
    whole = evaluator.compare({"ready": torch.arange(7.0)}, (x, target))
    torch.testing.assert_close(found["ready"].score, whole["ready"].score)


def test_until_does_not_cut_what_samples_share():
    torch.manual_seed(0)
    net = dense(4)
    embeddings = torch.randn(N, 4)

    class Matching(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, embeddings):
            return self.net(x) @ embeddings.T

    x, y = torch.randn(N, 6), torch.arange(N) % 3
    evaluator = CumulativeAblationEvaluator(Matching(), "net.1", n_random=2)
    scores = torch.arange(7.0)
    expected = evaluator.evaluate(scores, Batch((x,), y, (embeddings,), shared=(1,)))
    with pytest.warns(UserWarning, match="argument 1 of the model looks shared"):
        found = evaluator.evaluate(scores, Batch((x,), y, (embeddings,)), until=0.0001, batch_size=6)
    torch.testing.assert_close(found.score, expected.score)


def test_integers_of_one_column_are_classes_to_attributions_and_a_column_to_the_metric(x):
    net, y = dense(3), torch.arange(N)[:, None] % 3

    def metric(outputs, target):
        return outputs.gather(1, target)[:, 0]

    own = CumulativeAblationEvaluator(net, "1", metric=metric, n_random=2)
    plain = CumulativeAblationEvaluator(net, "1", metric="logit", n_random=2)
    methods = {"selectivity": LayerClassSelectivity(net, "1"), "conductance": LayerConductance(net, net[1])}
    found, expected = own.compare(methods, (x, y)), plain.compare(methods, (x, y))
    for name in methods:
        torch.testing.assert_close(found[name].scores, expected[name].scores)
        torch.testing.assert_close(found[name].values, expected[name].values)
        torch.testing.assert_close(found[name].per_class, expected[name].per_class)
