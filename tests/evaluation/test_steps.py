"""The counts of units that are ablated, the order they are ablated in, and its reverse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from curve_checks import SCORES
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from captum_ablate import CumulativeAblationEvaluator


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6]),
        (1, [0, 6]),
        (2, [0, 3, 6]),
        (3, [0, 2, 4, 6]),
        (6, [0, 1, 2, 3, 4, 5, 6]),
        (20, [0, 1, 2, 3, 4, 5, 6]),
        (1000, [0, 1, 2, 3, 4, 5, 6]),
        ([1, 3], [0, 1, 3, 6]),
        ((3, 1, 3), [0, 1, 3, 6]),
        ([0, 6], [0, 6]),
        (range(2, 5), [0, 2, 3, 4, 6]),
        (np.array([2, 5]), [0, 2, 5, 6]),
        (torch.tensor([2, 5]), [0, 2, 5, 6]),
        (np.int64(2), [0, 3, 6]),
    ],
)
def test_steps_are_counts_from_nothing_to_everything(dense, dense_data, steps, expected):
    curve = CumulativeAblationEvaluator(dense, "2", steps=steps, n_random=1).evaluate(SCORES, dense_data)
    assert curve.n_ablated.tolist() == expected
    assert curve.fraction.tolist() == [k / 6 for k in expected]
    assert curve.values.shape == (len(expected), 60)


@given(units=st.integers(1, 60), steps=st.integers(1, 80))
@settings(deadline=None, max_examples=15)
def test_a_number_of_steps_gives_evenly_spaced_counts(units, steps):
    model = nn.Sequential(nn.Linear(2, units), nn.Linear(units, 2)).eval()
    data = (torch.zeros(2, 2), torch.tensor([0, 1]))
    evaluator = CumulativeAblationEvaluator(model, "0", steps=steps, n_random=0)
    counts = evaluator.evaluate(torch.arange(float(units)), data).n_ablated.tolist()
    assert counts[0] == 0
    assert counts[-1] == units
    assert counts == sorted(set(counts))
    assert len(counts) <= min(steps, units) + 1
    assert all(min(abs(c - k * units / steps) for k in range(steps + 1)) <= 0.5 for c in counts)
    assert max(np.diff(counts)) <= max(1, np.ceil(units / steps))


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        (0, ValueError, "steps must be at least 1"),
        (-3, ValueError, "steps must be at least 1"),
        ([], ValueError, "steps must be counts of units to ablate"),
        ([0], ValueError, "steps must be counts of units to ablate"),
        ([-1, 2], ValueError, "steps must be counts of units to ablate"),
        ([1.5], ValueError, "steps must be counts of units to ablate"),
        (2.5, TypeError, "steps must be an int, a sequence of counts, or None; got 2.5"),
        (True, TypeError, "steps must be an int, a sequence of counts, or None"),
    ],
)
def test_steps_out_of_range_are_refused(dense, steps, error, message):
    with pytest.raises(error, match=message):
        CumulativeAblationEvaluator(dense, "2", steps=steps)


def test_more_units_than_there_are_cannot_be_ablated(dense, dense_data):
    with pytest.raises(ValueError, match="steps must not exceed the number of units, 6; got 7"):
        CumulativeAblationEvaluator(dense, "2", steps=[2, 7]).evaluate(SCORES, dense_data)


def test_the_reverse_is_the_descending_curve_of_negated_scores(dense, dense_data):
    evaluator = CumulativeAblationEvaluator(dense, "2", steps=None, metric="logit", n_random=3)
    curve, negated = evaluator.evaluate(SCORES, dense_data), evaluator.evaluate(-SCORES, dense_data)
    assert torch.equal(curve.order.flip(0), negated.order)
    assert torch.equal(curve.ascending_values, negated.values)
    assert torch.equal(curve.values, negated.ascending_values)
    assert curve.gap == pytest.approx(-negated.gap, abs=1e-12)


def test_ties_are_broken_by_a_seeded_permutation_and_counted(dense, dense_data):
    def curve(scores, seed):
        return CumulativeAblationEvaluator(dense, "2", n_random=0, seed=seed).evaluate(scores, dense_data)

    tied = torch.tensor([1.0, 0, 1, 0, 1, 0])
    orders = {tuple(curve(tied, seed).order.tolist()) for seed in range(8)}
    assert len(orders) > 3
    for order in orders:
        assert set(order[:3]) == {0, 2, 4}
    assert curve(tied, 1).order.tolist() == curve(tied, 1).order.tolist()
    assert curve(tied, 0).ties == 4
    assert curve(torch.zeros(6), 0).ties == 5
    assert curve(SCORES, 0).ties == 0
    assert {curve(SCORES, seed).order.tolist() == curve(SCORES, 0).order.tolist() for seed in range(5)} == {True}
