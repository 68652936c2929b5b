"""Accuracy of the worst group: a slow oracle, closed forms, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_ablate import worst_group_accuracy
from captum_ablate.statistics.intervals import mean_interval


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_worst_group_equals_oracle(seed):
    rng = np.random.default_rng(seed)
    y, s, p = (rng.integers(k, size=50) for k in (3, 2, 3))
    pairs = sorted({(int(a), int(b)) for a, b in zip(y, s, strict=True)})
    members = {g: [i for i in range(50) if (y[i], s[i]) == g] for g in pairs}
    accuracy = {g: sum(p[i] == y[i] for i in index) / len(index) for g, index in members.items()}
    present = [g for g in pairs for _ in range(int(rng.integers(1, 5)))]
    result = worst_group_accuracy(p, y, s, train=tuple(zip(*present, strict=True)))
    assert result.value == pytest.approx(min(accuracy.values()))
    assert accuracy[result.group] == result.value
    assert result.mean == pytest.approx(np.mean(p == y))
    assert result.train_weighted == pytest.approx(np.mean([accuracy[g] for g in present]))
    frame = result.to_frame()
    assert {(r[1], r[2]): r.accuracy for r in frame.itertuples()} == pytest.approx(accuracy)
    assert frame["n"].tolist() == [len(members[g]) for g in pairs]
    assert (frame["low"] <= frame["accuracy"]).all()
    assert (frame["accuracy"] <= frame["high"]).all()


def test_groups_may_be_attributes_or_joint_and_predictions_logits():
    y, s = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    by_attribute = worst_group_accuracy(logits, y, s)
    joint = worst_group_accuracy(logits.argmax(1), y, 2 * y + s)
    assert by_attribute.value == joint.value == 0.0
    assert by_attribute.group == (0, 1)
    assert by_attribute.mean == 0.75
    assert np.isnan(by_attribute.train_weighted)
    assert len(by_attribute.plot().get_yticklabels()) == 4
    assert mean_interval(by_attribute.accuracy.numpy()).low < 0.75


def test_wilson_interval_in_closed_form():
    """No success in n: from 0 to z^2 / (n + z^2)."""
    frame = worst_group_accuracy([1] * 10, [0] * 10, [0] * 10).to_frame()
    z2 = 1.959963984540054**2
    assert frame["low"][0] == pytest.approx(0)
    assert frame["high"][0] == pytest.approx(z2 / (10 + z2))


def test_worst_group_refuses():
    with pytest.raises(ValueError, match="got lengths: predictions 2, target 3, groups 3"):
        worst_group_accuracy([0, 1], [0, 1, 0], [0, 0, 0])
    with pytest.raises(ValueError, match=r"the training data have the group \(1, 1\)"):
        worst_group_accuracy([0, 1], [0, 1], [0, 0], train=([0, 1], [0, 1]))
    with pytest.raises(ValueError, match="groups"):
        worst_group_accuracy([0, 1], [0, 1], [0.5, 0.5])
