"""Weights are trained once and kept; training repeats by seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from benchmarks.papers.common import networks
from benchmarks.papers.common.training import accuracy, fit_classifier, trained


def test_weights_are_trained_once_and_kept(tmp_path) -> None:
    fits: list[nn.Module] = []

    def fit(network: nn.Module) -> None:
        fits.append(network)
        with torch.no_grad():
            network.weight.fill_(7.0)

    def run(floor: float):
        return trained("key", lambda: nn.Linear(2, 2), fit, evaluate=lambda _: 0.8, floor=floor, cache=tmp_path)

    first, second = run(0.5), run(0.5)
    assert len(fits) == 1
    assert not second.network.training
    assert torch.equal(first.network.weight, second.network.weight)
    assert (second.accuracy, second.seconds) == (0.8, first.seconds)
    with pytest.raises(ValueError, match=r"accuracy of 90.0% .* it reached 80.0%"):
        run(0.9)


def blobs(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (n,), generator=generator)
    images = torch.randn(n, 1, 8, 8, generator=generator) * 0.5
    images[labels == 1, :, :4] += 1.0
    return images, labels


def test_fitting_learns_and_repeats_and_leaves_the_random_state() -> None:
    images, labels = blobs(300)
    state = torch.random.get_rng_state()
    weights = []
    for _ in range(2):
        network = networks.mlp(64, hidden=(8,), classes=2, seed=1)
        fit_classifier(
            network, images, labels, epochs=6, seed=3, batch=32, flip=True, crop=1, max_lr=1e-2, show_progress=False
        )
        weights.append(network.classifier.weight.detach().clone())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(*weights)
    assert not network.training
    assert accuracy(network, images, labels) > 0.95
    with pytest.raises(ValueError, match="epochs must be at least 1; got 0"):
        fit_classifier(network, images, labels, epochs=0)


def test_crops_are_shifted_copies_of_the_image() -> None:
    from benchmarks.papers.common.training import _augmented

    image = torch.arange(1.0, 17.0).reshape(1, 1, 4, 4).expand(50, 2, 4, 4)
    shifted = _augmented(image, False, 1, torch.Generator().manual_seed(0))
    padded = nn.functional.pad(image[:1], (1, 1, 1, 1))
    possible = [padded[0, :, r : r + 4, c : c + 4] for r in range(3) for c in range(3)]
    seen = {next(k for k, one in enumerate(possible) if torch.equal(one, shot)) for shot in shifted}
    assert seen == set(range(9))
