"""Shapes are drawn where their factors say, and parts are disjoint."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.papers.common.scale import Scale
from benchmarks.papers.omahony import shapes


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
