"""Seconds by method add up to the time that passed, however blocks share and nest."""

from __future__ import annotations

import time

import pytest
import torch
from captum.attr import LayerConductance
from torch import nn

from captum_ablate import CumulativeAblationEvaluator, LayerMeanActivity, LayerMutualInformation, LayerUnitAblation
from captum_ablate.evaluation.seconds import Seconds


def test_shared_blocks_are_split_and_inner_ones_are_not_charged_twice():
    now = iter([0.0, 2.0, 5.0, 6.0, 7.0, 12.0, 20.0, 21.0])
    seconds = Seconds(lambda: next(now))
    with seconds.of("a", "b"):  # 0 to 12
        with seconds.of("c"):  # 2 to 5
            pass
        with seconds.of("d"):  # 6 to 7
            pass
    with seconds.of():  # nobody's
        pass
    assert seconds.by_name == {"a": 4.0, "b": 4.0, "c": 3.0, "d": 1.0}


def test_time_is_kept_when_a_block_fails():
    now = iter([0.0, 1.0, 3.0, 4.0])
    seconds = Seconds(lambda: next(now))
    with pytest.raises(ZeroDivisionError), seconds.of("a"), seconds.of("b"):
        raise ZeroDivisionError
    assert seconds.by_name == {"b": 2.0, "a": 2.0}


def test_each_kind_of_method_is_charged_what_it_took():
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()

    def slow(model, layer, data):
        time.sleep(0.3)
        return torch.arange(8.0)

    class Slow(LayerConductance):
        def attribute(self, inputs, target=None):
            time.sleep(0.2)
            return super().attribute(inputs, target=target)

    methods = {
        "function": slow,
        "per sample": Slow(net, net[1]),
        "activity": LayerMeanActivity(net, "1"),
        "information": LayerMutualInformation(net, "1"),
        "measured": LayerUnitAblation(net, "1"),
    }
    data = torch.randn(30, 5), torch.arange(30) % 3
    about = CumulativeAblationEvaluator(net, "1", n_random=2).compare(methods, data).provenance
    found = about.ranking_seconds
    assert 0.3 <= found["function"] < 0.6
    assert 0.2 <= found["per sample"] < 0.5
    assert all(0 < found[name] < 0.3 for name in ("activity", "information", "measured"))
    assert sum(found.values()) < about.seconds
    assert list(found) == list(methods)
