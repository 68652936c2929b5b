"""Absolute times of the parts that a user calls, to compare commits with pytest-benchmark.

``python -m pytest benchmarks/test_parts.py --benchmark-autosave``, and with ``--benchmark-compare`` after a change.
"""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerActivation

from benchmarks.cases import Case
from captum_ablate import CumulativeAblationEvaluator, LayerClassSelectivity, LayerUnitAblation, unit_scores

pytest_benchmark = pytest.importorskip("pytest_benchmark")


@pytest.fixture(scope="module")
def case():
    """ResNet-18 layer4.0 and 32 images of 64 px in two batches: model, layer, units, batches."""
    return Case("resnet18", "layer4.0", 64).build(32, 16)


@pytest.fixture(scope="module")
def head():
    """ResNet-18 avgpool, after which the network is linear, with more steps than the closed form needs to pay."""
    return Case("resnet18", "avgpool", 64).build(32, 16)


def _evaluator(model, layer, **more):
    return CumulativeAblationEvaluator(model, layer, **{"n_random": 0, **more})


def test_plain_pass(benchmark, case):
    model, _, _, batches = case
    with torch.no_grad():
        benchmark(lambda: [model(x) for x, _ in batches])


def test_statistic(benchmark, case):
    model, layer, _, batches = case
    benchmark(LayerClassSelectivity(model, layer).attribute, batches)


def test_scores_of_a_captum_attribution(benchmark, case):
    model, layer, _, batches = case
    benchmark(unit_scores, LayerActivation(model, layer), batches)


@pytest.mark.parametrize("steps", [1, 20])
def test_curve(benchmark, case, steps):
    model, layer, units, batches = case
    benchmark(_evaluator(model, layer, steps=steps).evaluate, torch.rand(units), batches)


def test_curve_before_a_linear_head(benchmark, head):
    model, layer, units, batches = head
    benchmark(_evaluator(model, layer, steps=None).evaluate, torch.rand(units), batches)


def test_comparison(benchmark, case):
    model, layer, units, batches = case
    rankings = {str(k): torch.rand(units) for k in range(4)}
    benchmark.pedantic(_evaluator(model, layer, n_random=5).compare, (rankings, batches), rounds=3)


def test_single_units(benchmark, case):
    model, layer, _, batches = case
    benchmark.pedantic(LayerUnitAblation(model, layer).attribute, (batches,), rounds=2)
