"""The mid-range and the choice of samples from it: closed forms, a slow oracle, laws, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_ablate import curate_midrange, midrange
from captum_ablate.diagnostics.midrange import minority_groups


def made(seed, n=60, classes=3, ties=True):
    """Logits with ties, and labels of which every class has some."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 2
    target = np.concatenate([np.arange(classes), rng.integers(classes, size=n - classes)])
    return (logits.round(1) if ties else logits), target


def oracle(logits, target, mode, low, high):
    """One class and one sample at a time, from sorted lists."""
    found = {}
    for c in sorted(set(target)):
        column = [row[c] for row in logits]
        if mode == "quantile":
            start, end = np.percentile(column, 100 * low), np.percentile(column, 100 * high)
        else:
            a, b = min(column), max(column)
            if mode == "between_modes":
                own = sorted(value for value, y in zip(column, target, strict=True) if y == c)
                others = sorted(value for value, y in zip(column, target, strict=True) if y != c)
                a, b = sorted([middle(own), middle(others)])
            start, end = a + low * (b - a), a + high * (b - a)
        found[c] = [i for i, value in enumerate(column) if start <= value <= end]
    return found


def middle(values):
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["between_modes", "quantile", "range"]),
    st.sampled_from([(0.25, 0.75), (0.35, 0.65), (0.0, 1.0), (0.1, 0.2)]),
)
def test_midrange_equals_oracle(seed, mode, band):
    logits, target = made(seed, ties=False)
    mids = midrange(logits, target, mode=mode, band=band)
    expected = oracle(logits.tolist(), target.tolist(), mode, *band)
    assert {c: mids[c].tolist() for c in mids.classes.tolist()} == expected
    assert mids.unique.tolist() == sorted(set().union(*expected.values()))
    assert mids.mask.nonzero().flatten().tolist() == mids.unique.tolist()


def test_closed_form_of_the_three_modes():
    logits = torch.stack([torch.arange(11.0), -torch.arange(11.0)], dim=1)
    target = (torch.arange(11) < 5).long()  # others of class 0: 0..4, median 2; own: 5..10, median 7.5
    assert midrange(logits, target, band=(0.0, 0.5))[0].tolist() == [2, 3, 4]  # 2 to 4.75
    assert midrange(logits, target, mode="range", band=(0.4, 0.6))[0].tolist() == [4, 5, 6]
    assert midrange(logits, target, mode="quantile", band=(0.4, 0.6))[1].tolist() == [4, 5, 6]


def test_two_mirrored_logits_have_the_same_midrange():
    logits, target = made(0, classes=2)
    mirrored = np.stack([-logits[:, 1], logits[:, 1]], axis=1)
    mids = midrange(mirrored, target)
    assert mids[0].tolist() == mids[1].tolist() == mids.unique.tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["between_modes", "quantile", "range"]))
def test_midrange_ignores_scale_shift_and_order(seed, mode):
    logits, target = made(seed, ties=False)
    mids = midrange(logits, target, mode=mode)
    assert midrange(4 * logits + 8, target, mode=mode).unique.tolist() == mids.unique.tolist()
    order = np.random.default_rng(seed).permutation(len(target))
    moved = midrange(logits[order], target[order], mode=mode)
    assert sorted(order[moved.unique.numpy()].tolist()) == mids.unique.tolist()


def test_the_quantile_band_of_many_classes_holds_confident_negatives():
    """Why between_modes is the default: with ten balanced classes the middle quantiles are all of other classes."""
    target = torch.arange(500) % 10
    logits = 10 * torch.nn.functional.one_hot(target, 10) + torch.randn(
        500, 10, generator=torch.Generator().manual_seed(0)
    )
    mids = midrange(logits, target, mode="quantile")
    assert all(bool((target[mids[c]] != c).all()) for c in range(10))
    assert len(mids.unique) > 400
    assert len(midrange(logits, target).unique) < 60


def test_midrange_frame_and_plot():
    logits, target = made(3)
    mids = midrange(torch.tensor(logits), target.tolist())
    frame = mids.to_frame()
    assert len(frame) == sum(map(len, mids.indices))
    for row in frame.itertuples():
        assert row.logit == logits[row.sample, row.output]
        assert row.target == target[row.sample]
        assert row.prediction == logits[row.sample].argmax()
    axes = mids.plot().axes
    assert [ax.get_title("left").split(":")[0] for ax in axes] == ["class 0", "class 1", "class 2"]
    assert "per class 0:" in repr(mids)


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((torch.zeros(3), [0, 1, 0]), {}, r"logits must be \[n, classes\]"),
        ((torch.zeros(3, 1), [0, 0, 0]), {}, "single-output binary head"),
        ((torch.zeros(3, 2), [0, 1]), {}, "got lengths: target 2, logits 3"),
        ((torch.zeros(2, 2), [0, 2]), {}, r"must lie in 0\.\.1, the columns of the logits; got 0\.\.2"),
        ((torch.full((2, 2), torch.nan), [0, 1]), {}, "NaN or infinite"),
        ((torch.zeros(2, 2), [0, 1]), {"mode": "middle"}, "mode must be one of 'between_modes', 'quantile', 'range'"),
        ((torch.zeros(2, 2), [0, 1]), {"band": (0.6, 0.4)}, "0 <= low < high <= 1; got"),
        ((torch.zeros(2, 2), [1, 1]), {}, "all have the label 1"),
        ((torch.zeros(0, 2), []), {}, "at least one sample"),
    ],
)
def test_midrange_refuses(arguments, options, text):
    with pytest.raises(ValueError, match=text):
        midrange(*arguments, **options)


def test_midrange_of_an_absent_class_is_a_key_error():
    with pytest.raises(KeyError, match="no sample has the label 2"):
        midrange(torch.zeros(2, 3), [0, 1])[2]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_curation_keeps_its_promises(seed):
    logits, target = made(seed)
    groups = np.random.default_rng(seed).integers(2, size=len(target)) + 5
    mids = set(midrange(logits, target).unique.tolist())
    wrong = {i for i, row in enumerate(logits) if np.argmax(row) != target[i]}
    rare = set()
    for c in set(target):  # a pair of class and group is rare if it has less than its share of the class
        own = [i for i in range(len(target)) if target[i] == c]
        kinds = {g: [i for i in own if groups[i] == g] for g in {groups[i] for i in own}}
        rare |= {i for members in kinds.values() if len(members) < len(own) / len(kinds) for i in members}
    assert set(minority_groups(target, groups).nonzero().flatten().tolist()) == rare
    assert set(curate_midrange(logits, target).indices.tolist()) == mids
    for minority, members, extra in (("error", wrong, {}), ("group", rare, {"groups": groups})):
        curation = curate_midrange(logits, target, minority=minority, seed=seed, **extra)
        assert set(curation.chosen.tolist()) == mids & members
        assert not set(curation.companions.tolist()) & (mids | members)
        for c in set(target):
            pool = sum(target[i] == c for i in range(len(target)) if i not in mids | members)
            wanted = sum(target[i] == c for i in mids & members)
            assert sum(target[i] == c for i in curation.companions.tolist()) == min(pool, wanted)
        assert curation.indices.tolist() == sorted({*curation.chosen.tolist(), *curation.companions.tolist()})
        assert curation.uses_group_labels == (minority == "group")
        frame = curation.to_frame()
        assert frame["sample"].tolist() == curation.indices.tolist()
        assert (frame["role"] == "companion").sum() == len(curation.companions)


def test_curation_plot_counts_what_was_chosen():
    logits, target = made(1)
    curation = curate_midrange(logits, target, minority="error")
    assert len(curation) > 4
    bars = curation.plot().axes[0].patches
    assert sum(bar.get_width() for bar in bars) == len(curation)


def test_curation_draws_companions_by_seed_and_leaves_the_random_state():
    logits, target = made(2, n=200)
    state = torch.get_rng_state()
    one, same, other = (curate_midrange(logits, target, minority="error", seed=s).indices.tolist() for s in (0, 0, 1))
    assert one == same != other
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"minority": "wrong"}, 'must be "none", "error" or "group"'),
        ({"minority": "group"}, "groups missing"),
        ({"minority": "error", "groups": [0, 1]}, "groups given"),
        ({"minority": "group", "groups": [0, 1, 1]}, "got lengths: target 2, groups 3"),
    ],
)
def test_curation_refuses(options, text):
    with pytest.raises(ValueError, match=text):
        curate_midrange(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), [0, 1], **options)
