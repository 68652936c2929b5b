"""The betting confidence sequence: coverage and images needed, by simulation on finite populations."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch

from captum_ablate.statistics.confidence_sequence import ConfidenceSequence, Sampled, betting_interval

N = 400
_RNG = np.random.default_rng(0)
POPULATIONS = {
    "two-point, half": (np.arange(N) % 2).astype(float),
    "two-point, rare": (np.arange(N) < 8).astype(float),
    "beta(5, 2)": _RNG.beta(5, 2, N),
    "skewed": _RNG.beta(0.3, 3, N),
    "near 0": _RNG.uniform(0, 0.01, N),
    "near 1, one outlier": np.where(np.arange(N) == 0, 0.0, _RNG.uniform(0.99, 1, N)),
    "like deletion areas": np.clip(_RNG.normal(0.7, 0.12, N), 0, 1),
    "constant": np.full(N, 0.3),
}
each_population = pytest.mark.parametrize("values", POPULATIONS.values(), ids=POPULATIONS)


def orders(values, replicates, seed=1):
    """The population in ``replicates`` random orders, ``[N, replicates]``."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(values) for _ in range(replicates)], axis=1)


def capital_by_hand(values, population, alpha, m):
    """log of the largest (K+ / 2, K- / 2) so far for a candidate mean: the paper's formulas, one draw at a time."""
    up = down = 0.0
    largest = -np.inf
    total, squares = 0.0, 0.0
    variance = 0.25
    for t, x in enumerate(values, start=1):
        mean = (population * m - total) / (population - t + 1)
        if not 0 <= mean <= 1:
            return np.inf
        bet = np.sqrt(2 * log(2 / alpha) / (variance * t * log(1 + t)))
        up += log(1 + min(bet, 0.5 / mean if mean > 0 else np.inf) * (x - mean))
        down += log(1 - min(bet, 0.5 / (1 - mean) if mean < 1 else np.inf) * (x - mean))
        largest = max(largest, up, down)
        total += x
        squares += (x - (0.5 + total) / (t + 1)) ** 2
        variance = (0.25 + squares) / (t + 1)
    return largest - log(2)


def hoeffding(values, population, alpha):
    """Waudby-Smith and Ramdas (2020, NeurIPS, arXiv 2006.04347): Hoeffding's confidence sequence without replacement.

    Running intersection, with the bounds that the values seen give by themselves.
    """
    n = len(values)
    t = np.arange(1, n + 1)[:, None]
    bet = np.minimum(np.sqrt(8 * log(2 / alpha) / (t * np.log(t + 1))), 1)
    before = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(0)[:-1]])
    weight = (bet * (1 + (t - 1) / (population - t + 1))).cumsum(0)
    centre = (bet * (values + before / (population - t + 1))).cumsum(0) / weight
    half = ((bet**2 / 8).cumsum(0) + log(2 / alpha)) / weight
    total = values.sum(0)
    low, high = (centre - half).max(0), (centre + half).min(0)
    return np.maximum(low, total / population), np.minimum(high, 1 - (n - total) / population)


@each_population
@pytest.mark.parametrize("n", [1, 7, 60, 250])
def test_the_ends_are_where_the_capital_of_the_paper_reaches_its_threshold(values, n):
    drawn = orders(values, 1)[:n]
    (low,), (high,) = betting_interval(drawn, N, 0.05)
    threshold = log(1 / 0.05)
    for inside in np.linspace(low + 1e-6, high - 1e-6, 5):
        assert capital_by_hand(drawn[:, 0], N, 0.05, inside) < threshold
    for end, outside in ((low, low - 1e-6), (high, high + 1e-6)):
        logical = end in (drawn.sum() / N, 1 - (n - drawn.sum()) / N)
        assert logical or capital_by_hand(drawn[:, 0], N, 0.05, outside) >= threshold


@each_population
def test_the_mean_is_covered_at_all_sizes_together(values):
    replicates = 300
    drawn = orders(values, replicates)
    for n in (20, 100, 300):  # the running intersection: once refuted, for ever refuted
        low, high = betting_interval(drawn[:n], N, 0.05)
        missed = int(((values.mean() < low - 1e-9) | (values.mean() > high + 1e-9)).sum())
        assert missed <= 26  # of 300 at 5 %: more has a probability of 0.002


@each_population
def test_intervals_only_shrink_and_end_at_the_mean(values):
    sequence = ConfidenceSequence.start(3, N)
    drawn = orders(values, 3)
    widths = [sequence.half_width]
    for part in np.split(drawn, [1, 30, 200, 399]):
        sequence = sequence.extended(part)
        assert (sequence.low <= values.mean() + 1e-9).all()
        assert (sequence.high >= values.mean() - 1e-9).all()
        assert (sequence.half_width <= widths[-1] + 1e-12).all()
        widths.append(sequence.half_width)
    assert sequence.n == N
    np.testing.assert_allclose(sequence.low, values.mean(), atol=1e-12)
    np.testing.assert_allclose(sequence.high, values.mean(), atol=1e-12)


@each_population
def test_once_all_are_drawn_the_mean_is_inside_whatever_order_they_are_summed_in(values):
    """Without slack: a mean outside by 1e-16 is outside."""
    spread = -0.3 + 1.7 * values  # a metric with bounds of its own
    for drawn in orders(spread, 40).T:
        low, high = Sampled(0.01, N, 3, (-0.3, 1.4)).interval(drawn)
        assert low <= spread.mean() <= high
        assert low <= float(torch.from_numpy(drawn).mean()) <= high
        assert high - low < 1e-11


@each_population
def test_steps_of_any_size_give_the_same_interval(values):
    drawn = orders(values, 2)[:90]
    once = ConfidenceSequence.start(2, N).extended(drawn)
    parts = ConfidenceSequence.start(2, N)
    for part in np.split(drawn, [3, 40, 41]):
        parts = parts.extended(part)
    np.testing.assert_allclose(parts.low, once.low, atol=1e-8)
    np.testing.assert_allclose(parts.high, once.high, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in POPULATIONS if name != "two-point, half"])
def test_it_needs_fewer_images_than_hoeffding(name):
    drawn = orders(POPULATIONS[name], 20)

    def images(interval):
        return next(n for n in range(10, N + 1, 10) if np.subtract(*interval(drawn[:n], N, 0.05)[::-1]).mean() <= 0.06)

    ours, theirs = images(betting_interval), images(hoeffding)
    assert ours < 0.75 * theirs, f"{ours} images against {theirs}"


def test_at_the_largest_variance_it_needs_about_what_hoeffding_needs():
    drawn = orders(POPULATIONS["two-point, half"], 20)[:200]
    ours, theirs = (np.subtract(*f(drawn, N, 0.05)[::-1]).mean() for f in (betting_interval, hoeffding))
    assert ours < 1.1 * theirs


def test_the_level_is_divided_by_the_number_of_methods():
    drawn = orders(POPULATIONS["beta(5, 2)"], 1)[:50]
    alone = ConfidenceSequence.start(1, N, level=1 - 0.05 / 4).extended(drawn)
    of_four = ConfidenceSequence.start(4, N).extended(np.repeat(drawn, 4, axis=1))
    np.testing.assert_allclose(of_four.low, np.repeat(alone.low, 4))
    np.testing.assert_allclose(of_four.high, np.repeat(alone.high, 4))


def test_a_finite_set_needs_fewer_draws_than_an_endless_one():
    drawn = orders(POPULATIONS["beta(5, 2)"], 5)[:300]
    finite, endless = (np.subtract(*betting_interval(drawn, size, 0.05)[::-1]) for size in (N, 10**9))
    assert (finite < 0.8 * endless).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConfidenceSequence.start(0, 5), "at least one method"),
        (lambda: ConfidenceSequence.start(1, 0), "one value to draw"),
        (lambda: ConfidenceSequence.start(1, 5, level=1.0), "a level between 0 and 1"),
        (lambda: ConfidenceSequence.start(2, 5).extended(np.zeros((3, 1))), r"shape \[k, 2\]; got \(3, 1\)"),
        (lambda: ConfidenceSequence.start(1, 5).extended(np.zeros((6, 1))), "6 draws from 5 values"),
        (lambda: ConfidenceSequence.start(1, 5).extended(np.array([[1.5]])), r"must lie in \[0, 1\]; got 1.5 to 1.5"),
        (lambda: ConfidenceSequence.start(1, 5).extended(np.array([[np.nan]])), r"must lie in \[0, 1\]"),
    ],
)
def test_what_is_no_draw_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
