"""Feature selection: data whose best units are known, a plain loop, and the corrected interval by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit

from captum_ablate.studies import feature_selection, plot_feature_selections, resampled_interval


@pytest.fixture
def known():
    """120 samples of 3 classes; units 0, 1, 2 tell the class, units 3 to 11 are noise."""
    y = torch.arange(120) % 3
    noise = torch.randn(120, 12)
    noise[:, :3] = 0.1 * noise[:, :3] + 3 * torch.nn.functional.one_hot(y, 3)
    return noise, y


def test_the_units_that_tell_the_class_are_enough_and_noise_is_not(known):
    a, y = known
    good = torch.arange(12, 0, -1).double()
    found = feature_selection(good, a, y, k=(3, 6))
    assert found.accuracy.shape == (2, 10)
    assert (found.accuracy == 1).all()
    bad = feature_selection(-good, a, y, k=(3, 6))
    assert bad.mean.max() < 0.6
    better = found.over(bad)
    assert better["k"].tolist() == [3, 6, "mean"]
    assert (better["low"] > 0.3).all()
    assert better["wins"].tolist() == [10, 10, 10]


def test_accuracy_equals_a_plain_loop(known):
    a, y = known
    scores = torch.randn(12)
    found = feature_selection(scores, a, y, k=(2, 5), splits=3, seed=4)
    x, labels = a.double().numpy(), y.numpy()
    for split, (train, test) in enumerate(StratifiedShuffleSplit(3, test_size=0.5, random_state=4).split(x, labels)):
        for row, k in enumerate((2, 5)):
            top = np.argsort(-scores.numpy())[:k]
            mean, std = x[train][:, top].mean(0), x[train][:, top].std(0)
            model = LogisticRegression(max_iter=1000).fit((x[train][:, top] - mean) / std, labels[train])
            expected = (model.predict((x[test][:, top] - mean) / std) == labels[test]).mean()
            assert float(found.accuracy[row, split]) == pytest.approx(expected)


def test_scores_per_sample_are_ranked_on_the_training_half_alone(known):
    a, y = known
    per_sample = torch.rand(120, 12)
    found = feature_selection(per_sample, a, y, k=(3,), splits=4)
    halves = StratifiedShuffleSplit(4, test_size=0.5, random_state=0).split(a, y)
    for split, (train, test) in enumerate(halves):
        means = np.array([per_sample[train][y[train] == c].numpy().mean(0) for c in range(3)])
        alone = feature_selection(torch.tensor(np.abs(means).max(0)), a, y, k=(3,), splits=4)
        assert alone.accuracy[0, split] == found.accuracy[0, split]
        changed = per_sample.clone()
        changed[test] = 99 * torch.rand(len(test), 12)  # what is held out has no say
        again = feature_selection(changed, a, y, k=(3,), splits=4)
        assert again.accuracy[0, split] == found.accuracy[0, split]


def test_a_unit_that_speaks_against_one_class_counts_as_much_as_one_that_speaks_for_it(known):
    a, y = known
    against = torch.zeros(120, 12)
    against[:, :3] = -torch.nn.functional.one_hot(y, 3)
    assert (feature_selection(against, a, y, k=(3,), splits=4).accuracy == 1).all()


def test_the_same_seed_gives_the_same_splits_and_another_does_not(known):
    a, y = known
    scores = torch.zeros(12)
    one, same, other = (feature_selection(scores, a, y, k=(4,), seed=s) for s in (0, 0, 1))
    assert torch.equal(one.accuracy, same.accuracy)
    assert not torch.equal(one.accuracy, other.accuracy)
    with pytest.raises(ValueError, match="must have the same k and splits"):
        one.over(other)


def test_a_difference_is_the_other_one_turned_round(known):
    a, y = known
    scores = torch.arange(12.0)
    first, second = (feature_selection(s, a, y, k=(2, 4)) for s in (scores, -scores))
    forth, back = first.over(second), second.over(first)
    np.testing.assert_allclose(forth["difference"], -back["difference"])
    np.testing.assert_allclose(forth["low"], -back["high"])


def test_the_corrected_interval_as_computed_by_hand():
    values = np.array([0.80, 0.90, 0.85, 0.95])
    low, high = resampled_interval(values, n_train=300, n_test=100)
    error = np.sqrt((1 / 4 + 1 / 3) * np.var(values, ddof=1))
    half = stats.t.ppf(0.975, 3) * error
    assert (low, high) == pytest.approx((0.875 - half, 0.875 + half))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.integers(1, 500), st.integers(1, 500))
def test_the_corrected_interval_is_never_narrower_than_the_plain_one(values, n_train, n_test):
    array = np.array(values)
    corrected = resampled_interval(array, n_train, n_test)
    if array.std(ddof=1) < 1e-9:
        return
    plain = stats.t.interval(0.95, len(array) - 1, array.mean(), stats.sem(array))
    assert corrected.low < plain[0]
    assert corrected.high > plain[1]


def test_one_split_has_no_interval(known):
    a, y = known
    found = feature_selection(torch.arange(12.0), a, y, k=(3,), splits=1)
    assert np.isnan(found.intervals[0].low)


def test_frames_and_plots_show_every_split(known):
    a, y = known
    found = feature_selection(torch.arange(12.0), a, y, k=(2, 4), splits=3, name="mine")
    frame = found.to_frame()
    assert list(frame.columns) == ["method", "k", "split", "accuracy"]
    assert len(frame) == 6
    np.testing.assert_allclose(frame.groupby("k")["accuracy"].mean(), found.mean)
    axes = plot_feature_selections({"a": found, "b": found})
    np.testing.assert_allclose(axes.lines[0].get_ydata(), found.mean)
    assert found.plot(axes) is axes
    assert "'mine': accuracy" in repr(found)


def test_mistakes_are_told(known):
    a, y = known
    scores = torch.arange(12.0)
    with pytest.raises(ValueError, match="one row for each of the 120 labels; got"):
        feature_selection(scores, a[:5], y)
    with pytest.raises(ValueError, match=r"scores must be \[12\] or \[120, 12\]"):
        feature_selection(scores[:5], a, y)
    with pytest.raises(ValueError, match=r"between 1 and 12; got \(5, 20\)"):
        feature_selection(scores, a, y, k=(5, 20))
    with pytest.raises(ValueError, match="splits must be at least 1"):
        feature_selection(scores, a, y, k=(5,), splits=0)
    with pytest.raises(ValueError, match="must be finite"):
        feature_selection(scores * torch.nan, a, y, k=(5,))
    with pytest.raises(ValueError, match="one class only"):
        feature_selection(scores, a, torch.zeros(120, dtype=torch.int64), k=(5,))
    with pytest.raises(ValueError, match="every class needs two samples"):
        feature_selection(scores, a, torch.where(torch.arange(120) == 0, 7, y), k=(5,))
