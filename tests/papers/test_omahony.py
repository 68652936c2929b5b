"""The data and the sets of the mid-range replication: exact shares, disjoint parts, group labels only where told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.papers import shapes, spurious
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
