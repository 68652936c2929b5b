"""How often the data are walked through, and how often the model runs."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from captum.attr import LayerConductance, LayerGradientXActivation
from curve_checks import SCORES
from torch import nn

from captum_ablate import (
    CumulativeAblationEvaluator,
    LayerClassSelectivity,
    LayerLinearProbe,
    LayerMeanActivity,
    LayerMutualInformation,
)

pytestmark = pytest.mark.execution("graph")  # by measured seconds, full passes of a tiny network may be chosen


class Counting:
    """A re-iterable of batches that counts how often it was begun and how many batches it gave."""

    def __init__(self, x, y, size):
        self.batches = list(zip(x.split(size), y.split(size), strict=True))
        self.begun = self.given = 0

    def __iter__(self):
        self.begun += 1
        for batch in self.batches:
            self.given += 1
            yield batch


class CountingLinear(nn.Linear):
    """Counts its calls, and those with a given number of samples."""

    calls = 0

    def forward(self, x):
        CountingLinear.calls += 1
        return super().forward(x)


@pytest.fixture
def counted():
    model = nn.Sequential(
        CountingLinear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 3), nn.Tanh()
    ).eval()
    CountingLinear.calls = 0
    return model


@pytest.mark.filterwarnings("ignore:.*units have an entropy below:UserWarning")
def test_one_pass_over_the_ranking_data_serves_all_our_statistics(counted, dense_data):
    rank = Counting(torch.randn(40, 5), torch.arange(40) % 3, 10)
    ours = [
        LayerMeanActivity, LayerClassSelectivity, LayerMutualInformation, partial(LayerLinearProbe, C=1.0),
    ]  # fmt: skip
    evaluator = CumulativeAblationEvaluator(counted, "2", n_random=2, reference="mean")
    methods = {str(k): make(counted, "2") for k, make in enumerate(ours)}
    assert not evaluator.compare(methods, dense_data, ranking_data=rank).failed
    assert (rank.begun, rank.given) == (1, 4)
    few = CountingLinear.calls
    CountingLinear.calls = 0
    twice = Counting(torch.randn(80, 5), torch.arange(80) % 3, 10)
    evaluator.compare(methods, dense_data, ranking_data=twice)
    assert CountingLinear.calls - few == 4  # one forward pass for each further batch


def test_one_pass_over_the_ranking_data_serves_per_sample_methods_too(counted, dense_data):
    rank = Counting(torch.randn(40, 5), torch.arange(40) % 3, 10)
    methods = {
        "activity": LayerMeanActivity(counted, "2"),
        "conductance": LayerConductance(counted, counted[2]),
        "gradient": LayerGradientXActivation(counted, counted[2]),
    }
    CumulativeAblationEvaluator(counted, "2", n_random=2).compare(methods, dense_data, ranking_data=rank)
    assert (rank.begun, rank.given) == (1, 4)


def test_given_scores_need_one_batch_of_ranking_data_to_see_which_units_live(counted, dense_data):
    rank = Counting(torch.randn(40, 5), torch.arange(40) % 3, 10)
    CumulativeAblationEvaluator(counted, "2", n_random=2).evaluate(SCORES, dense_data, ranking_data=rank)
    assert rank.given == 1


def test_one_recording_of_each_batch_serves_all_methods_directions_orders_and_steps(counted):
    def calls(batches, methods, n_random=0, steps=2):
        data = Counting(torch.randn(10 * batches, 5), torch.arange(10 * batches) % 3, 10)
        CountingLinear.calls = 0
        curve = CumulativeAblationEvaluator(counted, "2", n_random=n_random, steps=steps).compare(
            {str(k): torch.randn(6) for k in range(methods)}, data
        )["0"]
        assert curve.engine.startswith("graph")
        return CountingLinear.calls

    assert calls(7, 1) - calls(3, 1) == 4  # one full pass for each further batch
    assert calls(3, 9, n_random=15, steps=None) == calls(3, 1)
    assert calls(7, 9, n_random=15, steps=None) == calls(7, 1)


def test_evaluation_data_are_walked_through_once(counted):
    data = Counting(torch.randn(40, 5), torch.arange(40) % 3, 10)
    CumulativeAblationEvaluator(counted, "2", n_random=5).compare({"a": SCORES, "b": -SCORES}, data)
    assert data.given <= 4 + 2  # and one batch more to see the layer, one to see which units live
