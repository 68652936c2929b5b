"""Units to flip: a network whose count is known, a slow loop over images, and what censoring does."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from captum.attr import LayerActivation, LayerConductance, LayerGradientXActivation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from captum_ablate.studies import FlipCounts, plot_flips, units_to_flip


def counter(units, threshold):
    """Class 0 has the sum of the units for its logit, class 1 a constant: 0 is predicted while the sum is above it."""
    net = nn.Sequential(nn.Identity(), nn.Linear(units, 2)).eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([torch.ones(units), torch.zeros(units)]))
        net[1].bias.copy_(torch.tensor([0.0, threshold]))
    return net


def result(counts, censored, limit=10):
    n = len(counts)
    return FlipCounts(
        "x", torch.tensor(counts), torch.tensor(censored), torch.zeros(n).long(), torch.zeros(n).long(), 20, limit,
        ("a",), "zero",
    )  # fmt: skip


@pytest.mark.parametrize("threshold", [0.5, 2.5, 5.5])
def test_a_sum_falls_under_its_threshold_after_the_known_number_of_units(threshold):
    x, y = torch.ones(3, 8), torch.tensor([0, 0, 1])
    net = counter(8, threshold)
    found = units_to_flip(LayerGradientXActivation(net, net[0]), (x, y))
    expected = math.ceil(8 - threshold)  # 8 - k < threshold
    assert found.counts.tolist() == [expected] * 3
    assert not found.censored.any()
    assert found.predicted.tolist() == [0, 0, 0]
    assert found.correct.tolist() == [True, True, False]


def test_the_largest_units_go_first():
    x = torch.tensor([[1.0, 5.0, 2.0], [4.0, 1.0, 3.0]])
    net = counter(3, 2.5)
    found = units_to_flip(LayerActivation(net, net[0]), (x, [0, 0]))
    assert found.counts.tolist() == [2, 2]  # 8 - 5 = 3, - 2 = 1; 8 - 4 = 4, - 3 = 1


def test_images_that_do_not_flip_are_censored_at_the_limit():
    x = torch.cat([torch.ones(2, 8), torch.full((1, 8), 0.5)])
    net = counter(8, 3.6)
    found = units_to_flip(LayerActivation(net, net[0]), (x, [0, 0, 0]), limit=4)
    assert found.counts.tolist() == [4, 4, 1]
    assert found.censored.tolist() == [True, True, False]
    assert found.median == math.inf
    assert found.flipped(4) == pytest.approx(1 / 3)
    assert "2 of 3 samples not flipped by 4" in repr(found)


def test_ablating_everything_flips_nothing_where_the_rest_predicts_the_same():
    net = counter(4, -1.0)
    found = units_to_flip(LayerActivation(net, net[0]), (torch.ones(2, 4), [0, 0]), limit=50)
    assert found.limit == 4
    assert found.censored.all()


def slow_count(model, layers, scores, image, limit):
    """One image, one unit more at a time, with a hook that writes zeros."""
    order = np.argsort(-np.concatenate(scores), kind="stable")
    which = np.concatenate([np.full(len(s), k) for k, s in enumerate(scores)])
    index = np.concatenate([np.arange(len(s)) for s in scores])

    def prediction(top):
        handles = []
        for k, layer in enumerate(layers):
            units = [int(index[u]) for u in top if which[u] == k]

            def zero(_, __, output, units=units):
                output = output.clone()
                output[:, units] = 0
                return output

            handles.append(layer.register_forward_hook(zero))
        with torch.no_grad():
            found = int(model(image[None]).argmax())
        for handle in handles:
            handle.remove()
        return found

    before = prediction([])
    for k in range(1, limit + 1):
        if prediction(order[:k]) != before:
            return k
    return None


def image_scores(attribution, image, target):
    return attribution.attribute(image[None], target=target).detach().double().flatten(2).sum(2)[0].numpy()


@pytest.mark.parametrize("names", [["conv2"], ["relu1", "conv2"], ["relu1", "relu2"]])
def test_counts_equal_a_loop_over_images(digits_net, small_digits, names):
    x, y = small_digits[0][:12], small_digits[1][:12]
    layers = [digits_net.get_submodule(name) for name in names]
    attributions = [LayerGradientXActivation(digits_net, layer) for layer in layers]
    found = units_to_flip(attributions if len(names) > 1 else attributions[0], (x, y), limit=10, batch_size=5)
    with torch.no_grad():
        predicted = digits_net(x).argmax(1)
    for i in range(len(x)):
        scores = [image_scores(a, x[i], int(predicted[i])) for a in attributions]
        slow = slow_count(digits_net, layers, scores, x[i], 10)
        assert bool(found.censored[i]) == (slow is None)
        assert int(found.counts[i]) == (slow or 10)
    assert found.layers == tuple(names)
    assert found.units == {"relu1": 8}.get(names[0], 0) * (len(names) > 1) + 16


def test_neither_batches_nor_the_order_of_images_matter(digits_net, small_digits):
    x, y = small_digits[0][:30], small_digits[1][:30]
    attribution = LayerConductance(digits_net, digits_net.relu2)
    whole = units_to_flip(attribution, (x, y), n_steps=5)
    parts = units_to_flip(attribution, [(x[:7], y[:7]), (x[7:], y[7:])], n_steps=5)
    back = units_to_flip(attribution, (x.flip(0), y.flip(0)), n_steps=5)
    assert torch.equal(whole.counts, parts.counts)
    assert torch.equal(whole.counts, back.counts.flip(0))
    assert torch.equal(whole.censored, back.censored.flip(0))


def test_the_mean_as_reference_is_learned_from_the_data(digits_net, small_digits):
    x, y = small_digits
    attribution = LayerGradientXActivation(digits_net, digits_net.relu3)
    mean = units_to_flip(attribution, (x, y), reference="mean", limit=24)
    with torch.no_grad():
        values = digits_net[:8](x).mean(0)
    tensor = units_to_flip(attribution, (x, y), reference=values, limit=24)
    assert torch.equal(mean.counts, tensor.counts)
    assert mean.reference == "mean"


def test_the_model_is_left_as_it_was(digits_net, small_digits):
    x, y = small_digits[0][:5], small_digits[1][:5]
    before = {name: value.clone() for name, value in digits_net.state_dict().items()}
    units_to_flip(LayerConductance(digits_net, digits_net.relu2), (x, y), n_steps=3, limit=3)
    assert all(torch.equal(before[name], value) for name, value in digits_net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in digits_net.modules())
    assert all(p.grad is None for p in digits_net.parameters())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 11), min_size=2, max_size=40))
def test_the_curve_is_one_minus_the_estimate_of_kaplan_and_meier(counts):
    limit = 10
    censored = [c > limit for c in counts]
    found = result([min(c, limit) for c in counts], censored, limit)
    surviving = 1.0
    for k in range(1, limit + 1):
        at_risk = sum(c >= k for c in counts)
        events = sum(c == k for c in counts)
        surviving *= 1 - events / at_risk if at_risk else 1
        assert found.flipped(k) == pytest.approx(1 - surviving)
    data = stats.CensoredData.right_censored(np.minimum(counts, limit), censored)
    steps = stats.ecdf(data).cdf
    curve = found.curve()
    np.testing.assert_allclose(curve["flipped"], steps.evaluate(curve["k"]), atol=1e-12)
    assert (curve["low"] <= curve["flipped"] + 1e-12).all()
    assert (curve["high"] >= curve["flipped"] - 1e-12).all()
    low, high = found.median_interval
    assert math.isnan(low) or low <= found.median <= high


def test_the_interval_of_the_median_covers_it_as_often_as_it_says():
    stream = np.random.default_rng(0)
    hits = []
    for _ in range(400):
        counts = stream.integers(1, 102, 41)  # median 51
        low, high = result(counts.tolist(), [False] * 41, limit=101).median_interval
        hits.append(low <= 51 <= high)
    assert 0.94 <= np.mean(hits) <= 0.995


def test_frames_and_plots_show_every_image(digits_net, small_digits):
    x, y = small_digits[0][:9], small_digits[1][:9]
    found = units_to_flip(LayerActivation(digits_net, digits_net.relu2), (x, y), limit=5)
    frame = found.to_frame()
    assert list(frame.columns) == ["method", "sample", "target", "predicted", "units", "censored"]
    assert frame["units"].tolist() == found.counts.tolist()
    axes = plot_flips({"a": found, "b": found})
    assert "a: median" in axes.get_legend().get_texts()[0].get_text()
    np.testing.assert_allclose(axes.lines[0].get_ydata(), found.curve()["flipped"])
    assert found.plot(axes) is axes


def test_mistakes_are_told(digits_net, dense, small_digits):
    x, y = small_digits
    first, second = (LayerActivation(digits_net, digits_net.get_submodule(n)) for n in ("relu1", "relu2"))
    with pytest.raises(ValueError, match="limit must be an int of at least 1; got 0"):
        units_to_flip(first, (x, y), limit=0)
    with pytest.raises(ValueError, match="empty list; pass one attribution per layer"):
        units_to_flip([], (x, y))
    with pytest.raises(ValueError, match="of the same forward_func"):
        units_to_flip([first, LayerActivation(dense, dense[0])], (x, y))
    with pytest.raises(ValueError, match="of different layers; two are of the same"):
        units_to_flip([first, first], (x, y))
    with pytest.raises(TypeError, match="no argument 'n_steps'"):
        units_to_flip([first, second], (x, y), n_steps=3)
    with pytest.raises(ValueError, match='reference must be "zero"'):
        units_to_flip(first, (x, y), reference="none")
    with pytest.raises(ValueError, match="between 0 and the limit of 10 units; got 11"):
        result([1, 2], [False, False]).flipped(11)
    digits_net.train()
    try:
        net = nn.Sequential(digits_net, nn.Dropout(0.5))
        with pytest.raises(ValueError, match="training mode"):
            units_to_flip(LayerActivation(net, digits_net.relu1), (x, y))
    finally:
        digits_net.eval()
