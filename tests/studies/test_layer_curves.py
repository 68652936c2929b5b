"""Curves layer by layer are those of the evaluator; the share of the gap is a ratio with a ratio's interval."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from captum_ablate import CumulativeAblationEvaluator, LayerMeanActivity, LayerMutualInformation
from captum_ablate.statistics.intervals import ratio_interval
from captum_ablate.studies import gap_share, layer_curves

METHODS = {"activity": LayerMeanActivity, "information": LayerMutualInformation}
OPTIONS = {"steps": 4, "n_random": 2, "metric": "log_likelihood"}


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


@pytest.fixture(scope="module")
def data(net):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(80, 5, generator=generator)
    with torch.no_grad():
        outputs = net(inputs)
    return inputs, (outputs - outputs.mean(0)).argmax(1)


def test_each_layer_alone_is_what_the_evaluator_gives(net, data):
    found = layer_curves(net, ["1", "3"], METHODS, data, pooled=False, **OPTIONS)
    assert list(found.comparisons) == ["1", "3"]
    for layer in ("1", "3"):
        alone = CumulativeAblationEvaluator(net, layer, **OPTIONS).compare(
            {name: make(net, layer) for name, make in METHODS.items()}, data
        )
        for name in METHODS:
            assert torch.equal(found[layer][name].values, alone[name].values)
    frame = found.to_frame()
    assert list(frame["layer"]) == ["1", "1", "3", "3"]
    row = frame.iloc[0]
    assert row["gap"] == found["1"]["activity"].gap
    assert row["share_low"] < row["share"] < row["share_high"]


def test_the_share_is_the_gap_over_what_everything_costs(net, data):
    curve = CumulativeAblationEvaluator(net, "1", **OPTIONS).evaluate(LayerMeanActivity(net, "1"), data)
    share, interval = gap_share(curve)
    lost = float((curve.values[0] - curve.values[-1]).mean())
    assert share == pytest.approx(curve.gap / lost)
    assert interval.low < share < interval.high


def test_a_ratio_interval_covers_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        below = generator.normal(2.0, 1.0, 60)
        above = 0.3 * below + generator.normal(0.4, 0.5, 60)  # ratio of means: 0.3 + 0.4 / 2
        _, (low, high) = ratio_interval(above, below)
        hits += low < 0.5 < high
    assert 0.92 < hits / 400 < 0.98


def test_a_ratio_over_nothing_is_not_a_number():
    ratio, interval = ratio_interval(np.ones(3), np.array([1.0, -1.0, 0.0]))
    assert all(np.isnan([ratio, *interval]))
    ratio, interval = ratio_interval(np.ones(1), np.array([4.0]))
    assert ratio == 0.25
    assert all(np.isnan(interval))


def test_the_picture_has_a_panel_per_layer(net, data):
    axes = layer_curves(net, ["1", "3"], METHODS, data, pooled=False, **OPTIONS).plot()
    assert [ax.get_title(loc="left") for ax in axes] == ["1 (7 units)", "3 (6 units)"]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == list(METHODS)
    plt.close("all")


def test_layers_that_make_no_sense_are_refused(net, data):
    with pytest.raises(TypeError, match="sequence of at least one layer; got '1'"):
        layer_curves(net, "1", METHODS, data)
    with pytest.raises(ValueError, match="layers must differ; got 1, 1"):
        layer_curves(net, ["1", "1"], METHODS, data)
    with pytest.raises(KeyError, match="no layer 'x'; there are '1'"):
        layer_curves(net, ["1"], METHODS, data, **OPTIONS)["x"]


def test_pooled_units_are_ranked_together_and_fall_in_that_order(net, data):
    found = layer_curves(net, ["1", "3"], METHODS, data, **OPTIONS)
    assert list(found.comparisons) == ["1", "3", "pooled"]
    for method in METHODS:
        curve = found["pooled"][method]
        both = torch.cat([found[layer][method].scores for layer in ("1", "3")])
        torch.testing.assert_close(curve.scores, both)
        assert sorted(curve.order.tolist()) == list(range(13))
        assert bool((both[curve.order].diff() <= 0).all())
        for count, values in zip(curve.n_ablated.tolist(), curve.values, strict=True):
            masks = [torch.ones(7), torch.ones(6)]
            for unit in curve.order[:count].tolist():
                masks[unit >= 7][unit - 7 * (unit >= 7)] = 0
            with torch.no_grad():
                first = net[1](net[0](data[0])) * masks[0]
                outputs = net[4](net[3](net[2](first)) * masks[1])
            plain = torch.log_softmax(outputs, 1).gather(1, data[1][:, None]).squeeze(1)
            np.testing.assert_allclose(values, plain, atol=1e-5)
    assert list(found.to_frame()["units"]) == [7, 7, 6, 6, 13, 13]
