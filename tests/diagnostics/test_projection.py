"""Trajectories under random projections: the slope law of codes whose spectrum is known."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from captum_ablate import random_projection_test
from captum_ablate.diagnostics import dot_on_circle
from captum_ablate.diagnostics.projection import random_projections, trajectory_energies


class Fourier(nn.Module):
    """A code of an angle whose k-th frequency has the variance k^-alpha."""

    def __init__(self, alpha, frequencies=1000):
        super().__init__()
        self.k = torch.arange(1, frequencies + 1, dtype=torch.float64)
        self.amplitude = self.k ** (-alpha / 2)
        self.code = nn.Identity()

    def forward(self, angle):
        wave = angle * self.k
        return self.code(torch.cat([self.amplitude * wave.cos(), self.amplitude * wave.sin()], dim=1))


def circle(frames):
    return 2 * torch.pi * torch.arange(frames, dtype=torch.float64)[:, None] / frames


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0])
def test_the_slope_of_a_fourier_code_is_2_minus_alpha_within_plus_and_minus_1(alpha):  # claim C3.2
    found = random_projection_test(Fourier(alpha), "code", circle, projections=40)
    near_a_corner = min(abs(alpha - 1), abs(alpha - 3)) < 0.5
    assert found.slope == pytest.approx(np.clip(2 - alpha, -1, 1), abs=0.3 if near_a_corner else 0.15)
    assert found.interval.low < found.slope < found.interval.high


def test_independent_codes_for_each_frame_have_slope_1():
    def noise(frames):
        return torch.randn(frames, 50, generator=torch.Generator().manual_seed(frames))

    found = random_projection_test(nn.Sequential(nn.Identity()), "0", noise, projections=100)
    assert found.slope >= 0.9
    np.testing.assert_allclose(found.energy / torch.tensor(found.frames), 2, rtol=0.15)


def test_energies_are_those_of_a_plain_loop():
    net = Fourier(1.5, frequencies=5)
    found = random_projection_test(net, "code", circle, projections=3, frames=(8, 12), seed=4)
    normals = torch.Generator().manual_seed(4)
    for row in found.energies:
        projection = torch.randn(10, 3, generator=normals, dtype=torch.float64).numpy() / np.sqrt(10)
        for frames, energy in zip((8, 12), row, strict=True):
            points = net(circle(frames)).numpy() @ projection
            steps = sum(((points[(t + 1) % frames] - points[t]) ** 2).sum() for t in range(frames))
            assert float(energy) == pytest.approx(steps / np.cov(points, rowvar=False).trace())


def test_the_variance_of_projections_is_3_over_m_of_the_total():  # claim C3.3
    units = 50
    eigenvalues = torch.arange(1, units + 1, dtype=torch.float64) ** -1.5
    ratios = torch.stack(
        [
            (eigenvalues[:, None] * p.square()).sum() / (3 * eigenvalues.sum() / units)
            for p in random_projections(units, 1000, 0)
        ]
    )  # trace(P^T Sigma P) with Sigma diagonal
    error = float(ratios.std()) / 1000**0.5
    assert abs(float(ratios.mean()) - 1) < 4 * error
    assert error < 0.03


def test_a_plane_circle_keeps_its_distances_under_projection():
    found = random_projection_test(Fourier(0.0, frequencies=1), "code", circle, projections=50, frames=(16, 32))
    codes = [Fourier(0.0, frequencies=1)(circle(frames)) for frames in (16, 32)]
    distances = torch.pdist(codes[1]).numpy()
    _, same = trajectory_energies(codes, distances, 1, projections=50, seed=0)
    assert (same > 0.3).all()
    assert found.distance_correlation.isfinite().all()


def test_a_small_network_moves_smoothly_with_a_dot_and_not_with_jumping_pixels():
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 8, 3, padding=1))
    dot = dot_on_circle(24, channels=1)

    def jumping(frames):
        return (dot(frames) > 0.5).float()

    smooth = random_projection_test(net, "1", dot, projections=20, frames=(64, 128, 256))
    jumps = random_projection_test(net, "1", jumping, projections=20, frames=(64, 128, 256))
    assert smooth.slope < -0.9
    assert jumps.slope > smooth.slope + 0.4
    assert smooth.units == 8 * 24 * 24


def test_the_dot_goes_once_around_at_its_exact_place():
    frames = dot_on_circle(33, channels=2, radius=10, width=2, background=-1)(8).double()
    assert frames.shape == (8, 2, 33, 33)
    weight = frames[:, 0] + 1
    grid = torch.arange(33, dtype=torch.float64) - 16
    mass = weight.sum((1, 2))
    x, y = (weight.sum(1) * grid).sum(1) / mass, (weight.sum(2) * grid).sum(1) / mass
    angle = 2 * torch.pi * torch.arange(8, dtype=torch.float64) / 8
    np.testing.assert_allclose(x, 10 * angle.cos(), atol=0.02)
    np.testing.assert_allclose(y, 10 * angle.sin(), atol=0.02)
    np.testing.assert_allclose(mass, mass.mean().expand(8), rtol=0.01)


def test_the_slope_does_not_depend_on_scale_or_batch_size():
    net = nn.Sequential(nn.Linear(1, 30), nn.Tanh()).double()
    louder = nn.Sequential(*net, nn.Linear(30, 30, bias=False)).double()
    with torch.no_grad():
        louder[2].weight.copy_(7 * torch.eye(30))
    one = random_projection_test(net, "1", circle, projections=5)
    other = random_projection_test(louder, "2", circle, projections=5, batch_size=10)
    np.testing.assert_allclose(one.slopes, other.slopes, rtol=1e-9)


def test_a_code_that_does_not_move_is_told():
    net = nn.Sequential(nn.Linear(1, 3))
    nn.init.zeros_(net[0].weight)
    with pytest.raises(ValueError, match="code of '0' does not move along the path"):
        random_projection_test(net.double(), "0", circle, projections=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": (32,)}, "two or more different numbers"),
        ({"frames": (2, 32)}, "3 or more each; got (2, 32)"),
        ({"projections": 1}, "at least 2 for an interval; got 1"),
        (
            {"path": lambda frames: torch.zeros(3, 1)},
            "path(32) must return inputs [32, ...], one for each frame; got (3, 1)",
        ),
        ({"path": lambda frames: "dot"}, "got str"),
    ],
)
def test_wrong_settings_are_told(settings, message):
    arguments = {"path": circle, "projections": 3, **settings}
    with pytest.raises(ValueError, match=re.escape(message)):
        random_projection_test(nn.Sequential(nn.Linear(1, 3)).double(), "0", **arguments)


def test_a_frame_and_a_picture_show_the_energy():
    found = random_projection_test(Fourier(2.0, 50), "code", circle, projections=20)
    frame = found.to_frame()
    assert frame["frames"].tolist() == [32, 64, 128, 256]
    assert (frame["low"] < frame["energy"]).all()
    assert (frame["energy"] < frame["high"]).all()
    assert "code (100 units)" in found.plot().get_title(loc="left")
    assert f"slope {found.slope:.2f}" in repr(found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_code_that_moves_by_rounding_alone_has_no_energy(dtype):
    """Divided by its own variance, rounding would look like a code of independent frames."""

    def jitter(frames):
        below = torch.arange(frames)[:, None] % 2 * torch.finfo(dtype).eps / 2
        return (1 - below * torch.ones(6)).to(dtype)

    net = nn.Sequential(nn.Identity())
    with pytest.raises(ValueError, match="does not move along the path"):
        random_projection_test(net, "0", jitter, projections=3)
