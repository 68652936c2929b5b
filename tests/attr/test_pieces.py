"""Samples are cut so that a path method's memory is bounded, and the numbers stay Captum's."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import (
    InternalInfluence,
    LayerActivation,
    LayerConductance,
    LayerDeepLift,
    LayerGradientShap,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    NoiseTunnel,
)
from torch import nn

from captum_ablate import CumulativeAblationEvaluator, completeness_delta, deficit_correlation, unit_scores
from captum_ablate.attr import pieces

PATHS = (LayerConductance, InternalInfluence, LayerIntegratedGradients)
each_path = pytest.mark.parametrize("cls", PATHS, ids=lambda cls: cls.__name__)


def close(one, other):
    torch.testing.assert_close(torch.as_tensor(one).double(), torch.as_tensor(other).double(), rtol=1e-5, atol=1e-7)


@pytest.fixture
def sizes(digits_net):
    """How many samples, times steps, the network is given at a time."""
    seen = []
    handle = digits_net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    yield seen
    handle.remove()


def limit(monkeypatch, model, layer, x, y, cls, samples, **options):
    """Leave room for so many samples."""
    one = pieces.held_bytes(lambda: cls(model, layer).attribute(x[:1], target=y[:1], **options), model)
    monkeypatch.setattr(pieces, "HELD_BYTES", int(one * samples * 1.01))


@each_path
@pytest.mark.parametrize("samples", [1, 4, 100])
def test_pieces_give_what_captum_gives_at_once(digits_net, small_digits, monkeypatch, sizes, cls, samples):
    x, y = small_digits[0][:10], small_digits[1][:10]
    attribution = cls(digits_net, digits_net.conv2)
    by_hand = attribution.attribute(x, target=y, n_steps=8).detach().double().sum((2, 3)).mean(0)
    limit(monkeypatch, digits_net, digits_net.conv2, x, y, cls, samples, n_steps=8)
    sizes.clear()
    close(unit_scores(attribution, (x, y), n_steps=8), by_hand)
    assert max(sizes) <= 9 * max(samples, 10 / 9) or samples == 100  # 8 or 9 steps, and the shapes of 10 samples
    if samples == 100:
        assert torch.equal(unit_scores(attribution, (x, y), n_steps=8), by_hand)


@each_path
@pytest.mark.parametrize("method", ["gausslegendre", "riemann_trapezoid", "riemann_left"])
def test_steps_are_cut_where_one_sample_does_not_fit(digits_net, small_digits, monkeypatch, sizes, cls, method):
    x, y = small_digits[0][:5], small_digits[1][:5]
    attribution = cls(digits_net, digits_net.relu3)
    by_hand = attribution.attribute(x, target=y, n_steps=20, method=method).detach().double().mean(0)
    limit(monkeypatch, digits_net, digits_net.relu3, x, y, cls, 0.3, n_steps=20, method=method)
    unit_scores(attribution, (x, y), n_steps=20, method=method)
    sizes.clear()
    close(unit_scores(attribution, (x, y), n_steps=20, method=method), by_hand)
    assert sorted(sizes)[-2] <= 21  # one is that of the sample which is measured
    assert sizes[-1] <= 8


def test_what_is_held_is_the_graph_of_one_sample_times_samples(digits_net, small_digits):
    x, y = small_digits
    run = partial(LayerConductance(digits_net, digits_net.conv2).attribute, n_steps=8)
    one = pieces.held_bytes(lambda: run(x[:1], target=y[:1]), digits_net)
    five = pieces.held_bytes(lambda: run(x[:5], target=y[:5]), digits_net)
    assert one > 9 * 8 * 8 * 8 * 4  # the first layer's outputs at 9 points
    assert 4.5 < five / one < 5.5  # memory that is freed and used again counts once
    with torch.no_grad():
        assert pieces.held_bytes(lambda: digits_net(x), digits_net) == 0


def test_baselines_with_a_row_for_each_sample_are_cut_along(digits_net, small_digits, monkeypatch):
    x, y = small_digits[0][:10], small_digits[1][:10]
    attribution, base = LayerConductance(digits_net, digits_net.relu3), torch.rand(10, 1, 8, 8)
    by_hand = attribution.attribute(x, base, target=y, n_steps=8).detach().double().mean(0)
    limit(monkeypatch, digits_net, digits_net.relu3, x, y, LayerConductance, 3, n_steps=8)
    close(unit_scores(attribution, (x, y), baselines=base, n_steps=8), by_hand)
    close(unit_scores(attribution, (x, y), baselines=(base,), n_steps=8), by_hand)


def test_additional_arguments_are_cut_along(dense, dense_data, monkeypatch):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = dense

        def forward(self, x, scale, factor):
            return self.net(x * scale) * factor

    model, (x, y), scale = Scaled().eval(), dense_data, torch.rand(60, 1)
    attribution = LayerConductance(model, dense[2])
    by_hand = attribution.attribute(x, target=y, additional_forward_args=(scale, 2.0)).detach().double().mean(0)
    monkeypatch.setattr(pieces, "HELD_BYTES", 30_000)
    close(unit_scores(attribution, (x, y), additional_forward_args=(scale, 2.0)), by_hand)


@pytest.mark.parametrize("cls", [LayerGradientXActivation, LayerDeepLift, LayerActivation])
def test_methods_that_repeat_nothing_are_not_measured(digits_net, small_digits, monkeypatch, cls):
    monkeypatch.setattr(pieces, "held_bytes", lambda *_: pytest.fail("measured"))
    unit_scores(cls(digits_net, digits_net.conv2), small_digits)


def test_what_a_user_says_of_the_size_of_a_pass_is_kept(digits_net, small_digits, monkeypatch, sizes):
    x, y = small_digits[0][:10], small_digits[1][:10]
    monkeypatch.setattr(pieces, "HELD_BYTES", 1)
    unit_scores(LayerConductance(digits_net, digits_net.conv2), (x, y), internal_batch_size=50)
    assert max(sizes) == 50
    assert 1 not in sizes


def test_measuring_draws_nothing(dense, dense_data):
    x, y = dense_data[0][:20], dense_data[1][:20]
    for attribution in (LayerGradientShap(dense, dense[2]), NoiseTunnel(LayerConductance(dense, dense[2]))):
        options = (
            {"baselines": x[:1]} if isinstance(attribution, LayerGradientShap) else {"nt_samples": 2, "n_steps": 5}
        )
        torch.manual_seed(4)
        np.random.seed(4)  # noqa: NPY002  Captum draws from it
        by_hand = attribution.attribute(x, target=y, **options).detach().double().mean(0)
        torch.manual_seed(4)
        np.random.seed(4)  # noqa: NPY002
        close(unit_scores(attribution, (x, y), **options), by_hand)


def test_a_model_for_one_size_of_batch_runs_whole():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.last(self.first(x).reshape(-1, 4, 6).tanh().reshape(-1, 6))

    model, x, y = Fixed().eval(), torch.randn(8, 5), torch.arange(8) % 3
    by_hand = LayerConductance(model, model.first).attribute(x, target=y).detach().double().mean(0)
    close(unit_scores(LayerConductance(model, model.first), (x, y)), by_hand)


def test_a_ranking_is_cut_too(digits_net, small_digits, monkeypatch, sizes):
    x, y = small_digits[0][:20], small_digits[1][:20]
    conductance = LayerConductance(digits_net, digits_net.conv2)
    whole = unit_scores(conductance, (x, y))
    limit(monkeypatch, digits_net, digits_net.conv2, x, y, LayerConductance, 2)
    sizes.clear()
    evaluator = CumulativeAblationEvaluator(digits_net, "conv2", n_random=0, steps=2)
    close(evaluator.evaluate(conductance, (x, y)).scores, whole)
    assert 2 * 51 in sizes
    assert 20 * 51 not in sizes


def test_completeness_is_cut_too(digits_net, small_digits, monkeypatch, sizes):
    x, y = small_digits[0][:20], small_digits[1][:20]
    conductance = LayerConductance(digits_net, digits_net.conv2)
    whole = completeness_delta(conductance, x, torch.zeros_like(x), target=y)
    limit(monkeypatch, digits_net, digits_net.conv2, x, y, LayerConductance, 3)
    sizes.clear()
    found = completeness_delta(conductance, x, torch.zeros_like(x), target=y)
    close(found.total, whole.total)
    close(found.delta, whole.delta)
    assert 20 * 51 not in sizes


def test_studies_take_a_noise_tunnel(dense, dense_data):
    tunnel = NoiseTunnel(LayerGradientXActivation(dense, dense[2]))
    found = deficit_correlation(tunnel, dense_data, stdevs=0.1)
    assert found.name == "NoiseTunnel(LayerGradientXActivation)"
    assert completeness_delta(tunnel, dense_data[0], 0, target=dense_data[1], stdevs=0.1).total.shape == (60,)
