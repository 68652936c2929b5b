"""The data and the sets of the mid-range replication: exact shares, disjoint parts, group labels only where told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.papers import shapes, spurious
from benchmarks.papers.claims import judged_over
from benchmarks.papers.omahony import training_section
from benchmarks.papers.omahony_levels import maximum_claims, maximum_lesson, midrange_claims
from benchmarks.papers.omahony_retraining import retraining_lesson
from benchmarks.papers.retraining_sets import USES_GROUPS, _sets
from benchmarks.papers.scale import Scale
from captum_ablate.diagnostics import HeadTable


def test_shapes_obey_the_bias_and_parts_are_disjoint():
    split = shapes.shape_split(1.0, 3, Scale.QUICK)
    for part in (split.train, split.held_out):
        for shape, (low, high) in enumerate(shapes.BANDS):
            at = part.positions[part.labels == shape]
            assert len(at) == len(part.labels) / 3
            assert bool(((at >= low) & (at < high)).all())
        assert not part.conflict.any()
    share = float(split.evaluate.conflict.double().mean())
    assert abs(share - 2 / 3) < 4 * np.sqrt(2 / 9 / len(split.evaluate.labels))
    poses = [tuple(pose) for part in (split.train, split.held_out, split.evaluate) for pose in part.factors.tolist()]
    assert len(set(poses)) == len(poses)


def test_a_shape_is_drawn_where_its_factors_say():
    """The mean of the drawn pixels is the centre; nothing is cut off; the largest is twice as wide."""
    factors = np.array(
        [[k, scale, 7, x, y] for k in (0, 1) for scale in (0, 5) for x, y in ((0, 31), (31, 0), (16, 16))]
    )
    images = torch.from_numpy(shapes.draw(factors, 64))[:, 0]
    pixels = (torch.arange(64) + 0.5) / 64
    mass = images.sum(dim=(1, 2))
    centre_x, centre_y = (images.sum(1) * pixels).sum(1) / mass, (images.sum(2) * pixels).sum(1) / mass
    expected = shapes.MARGIN + (1 - 2 * shapes.MARGIN) * torch.from_numpy(factors[:, 3:]) / 31
    torch.testing.assert_close(torch.stack([centre_x, centre_y], 1).double(), expected.double(), atol=0.01, rtol=0)
    assert images[:, [0, -1]].max() == images[:, :, [0, -1]].max() == 0
    areas = mass.reshape(2, 2, 3).mean(dim=2) / 64**2
    torch.testing.assert_close(areas[:, 1] / areas[:, 0], torch.full((2,), 4.0), atol=0.4, rtol=0)
    largest = torch.tensor([1.4**2, np.pi * 0.55]) * shapes.RADIUS**2  # square of side 1.4 r, ellipse r times 0.55 r
    torch.testing.assert_close(areas[:, 1], largest.float(), rtol=0.03, atol=0)


@pytest.mark.parametrize("share", [0.95, 0.5])
def test_the_attribute_agrees_for_exactly_its_share_of_each_class(share):
    labels = torch.tensor([0] * 200 + [1] * 100)
    attributes = spurious._attributes(labels, share, np.random.default_rng(0))
    for c in (0, 1):
        assert float((attributes == c)[labels == c].double().mean()) == pytest.approx(share)


def fake(n=400, seed=0):
    g = torch.Generator().manual_seed(seed)
    labels, attributes = torch.randint(0, 2, (n,), generator=g), torch.randint(0, 2, (n,), generator=g)
    logit = torch.randn(n, generator=g) + labels + attributes - 1
    table = HeadTable(torch.randn(n, 3, generator=g), torch.stack([-logit, logit], 1), labels)
    return table, spurious.Grouped(torch.zeros(n, 3, 2, 2), labels, attributes)


def test_only_the_named_sets_look_at_group_labels():
    """With other attributes, every other set stays as it was."""
    table, part = fake()
    changed = spurious.Grouped(part.images, part.labels, part.attributes.flip(0))
    before, after = _sets(table, part, 0), _sets(table, changed, 0)
    same = {name for name in before if all(torch.equal(a, b) for a, b in zip(before[name], after[name], strict=True))}
    assert set(before) - same == set(USES_GROUPS)


def test_sizes_and_companions_of_the_error_sets_match():
    table, part = fake(seed=1)
    sets = _sets(table, part, 0)
    wrong = table.logits.argmax(1) != table.target
    for mids, errors in zip(sets["mid-range errors"], sets["errors, as many as mid-range errors"], strict=True):
        for index in (mids, errors):
            assert len(index.unique()) == len(index)
        assert torch.equal(mids[~wrong[mids]].sort().values, errors[~wrong[errors]].sort().values)
        assert table.target[mids].bincount().tolist() == table.target[errors].bincount().tolist()
    assert len(sets["random"][0]) == len(sets["mid-range"][0])
    oracle = sets["group-balanced (oracle)"][0]
    pairs = 2 * table.target[oracle] + part.attributes[oracle]
    assert len(set(pairs.bincount().tolist())) == 1


def levels(seeds: int = 5) -> pd.DataFrame:
    rows = [
        {
            "bias": bias,
            "seed": seed,
            "held_out": 0.5 if seed == 1 else 0.95,
            "conflict": 0.1,
            "conflict_mid": 0.3 + 0.01 * seed,
            "conflict_top": 0.02,
            "purity_top": 0.99 - 0.5 * bias,
            "bits_mid": 0.2 * bias + 0.01 * seed,
            "bits_top": 0.0,
        }
        for bias in (0.0, 0.8, 0.9, 0.95, 1.0)
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def test_no_seed_is_left_out_of_the_comparison_with_networks_without_bias():
    joined, pure, apart, top = maximum_claims(levels())
    assert pure.figure.startswith("0.540")
    assert pure.verdict == "fails"
    assert apart.figure.startswith("0.180 [0.180, 0.180]")  # the seeds cancel, all five of them
    assert apart.verdict == "holds"
    assert joined.verdict == "fails"
    assert top.verdict == "reported"


def test_every_bias_and_both_checks_count_for_the_midrange():
    joined, *parts = midrange_claims(levels())
    assert [part.id for part in parts] == [
        f"C4.2 {check}, b = {bias}" for bias in (0.8, 0.9, 0.95) for check in ("ratio", "top")
    ]
    assert joined.verdict == "holds"
    assert parts[0].figure.startswith("3.20")


def test_every_network_is_trained_for_as_long_and_must_have_learnt_something(monkeypatch):
    assert shapes.epochs_of(Scale.NORMAL) == 40
    assert shapes.epochs_of(Scale.FULL) == 80
    assert 1 / 3 < shapes.SHORTCUT < 2 / 3 < shapes.LEARNT
    asked = {}

    def noted(key, make, fit, *, evaluate, floor):
        asked[key] = floor

    monkeypatch.setattr(shapes, "trained", noted)
    for bias in (0.0, 0.9):
        shapes.shape_network(bias, 0)
    shapes.shape_network(0.9, 0, epochs=20)
    assert asked == {
        "shapes32-6000images-bias0.0-40epochs-seed0": 0.80,
        "shapes32-6000images-bias0.9-40epochs-seed0": 0.65,
        "shapes32-6000images-bias0.9-20epochs-seed0": 0.65,
    }


def test_claims_after_fewer_epochs_stand_beside_those_of_the_protocol():
    def claims(value):
        return [judged_over("C", "is above 1", "the mean", [value, value + 0.1, value - 0.1], threshold=1, digits=1)]

    table = training_section(claims(0.0), claims(5.0), Scale.NORMAL).tables["training"]
    assert table.iloc[0].tolist() == ["C", "0.0 [-0.2, 0.2]", "fails", "5.0 [4.8, 5.2]", "holds"]
    assert [*table.columns][1::2] == ["after 20 epochs", "after 40 epochs"]


def test_what_failed_is_said_with_the_figures_of_the_run():
    assert "1.00 of its class" not in maximum_lesson(levels())
    assert "a share of 0.99 of its class there, that of a network of bias 0.9 0.54" in maximum_lesson(levels())
    assert "2.0% of it are conflict images, of all 10.0%" in maximum_lesson(levels())
    names = ("ERM", "all held-out", "mid-range", "mid-range minority", "group-balanced (oracle)", "errors")
    rows = [("dots", seed, name, 0.1 * k, 0.5 + 0.05 * k) for seed in range(2) for k, name in enumerate(names)]
    told = retraining_lesson(pd.DataFrame(rows, columns=["data", "seed", "set", "minority", "worst"]))
    assert told.startswith("- C4.3, dots: 10% of all held-out samples are a minority, 20% of the mid-range")
    assert "the worst group 60.0 % (ERM 50.0 %)" in told
    assert "65.0 % (chosen by group labels; oracle 70.0 %)" in told
    assert "50% are a minority, give 75.0 %" in told
    assert told.count("\n") == 0
