"""Two-class images with an attribute that predicts the class of 95 in 100 training images.

*Coloured MNIST*: digits 0 to 4 against 5 to 9; the colour, red or green, agrees with the class.
*Dominoes*: the class is the CIFAR-10 vehicle or animal below; the MNIST digit above, 0 or 1, agrees with it.

A group is a class with an attribute (the colour, the digit above), so there are four. The attribute agrees with the
class for 0.95 of each class in the training and held-out parts, and for half in the evaluation part: there the groups
of a class are of equal size. Both sets are our variants of well-known ones.

``python -m benchmarks.papers.omahony.spurious SEED`` trains both networks of one seed beforehand.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

from benchmarks.papers.common.data import images as image_data
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.common.training import Trained, accuracy, fit_classifier, trained

AGREEMENT = 0.95
VEHICLES = (0, 1, 8, 9)  # airplane, automobile, ship, truck


@dataclass(frozen=True)
class Grouped:
    """``images [n, 3, height, width]`` with the class and the attribute of each, ``[n]`` int64, 0 or 1."""

    images: Tensor
    labels: Tensor
    attributes: Tensor

    @property
    def minority(self) -> Tensor:
        """Whether the attribute contradicts the class, ``[n]`` bool."""
        return self.labels != self.attributes


@dataclass(frozen=True)
class SpuriousSplit:
    """Disjoint parts: ``train`` fits the network, ``held_out`` retrains its last layer, ``evaluate`` measures it."""

    train: Grouped
    held_out: Grouped
    evaluate: Grouped
    class_names: tuple[str, str]
    attribute_names: tuple[str, str]


def coloured_mnist(seed: int, *, agreement: float = AGREEMENT, n: int = 4000) -> SpuriousSplit:
    """Return coloured digits: ``n`` to train on, ``n`` held out, 2,000 to evaluate on."""
    split, rng = image_data("mnist"), np.random.default_rng(seed)
    images = _zero_to_one(torch.cat([split.train.images, split.rank.images, split.evaluate.images]))
    labels = (torch.cat([split.train.labels, split.rank.labels, split.evaluate.labels]) >= 5).long()
    known = len(split.train.labels)
    order = rng.permutation(known)
    test = np.arange(known, len(labels))

    def grouped(index: NDArray[np.int64], share: float) -> Grouped:
        y = labels[index]
        colour = _attributes(y, share, rng)
        painted = torch.zeros(len(index), 3, *images.shape[2:])
        painted[torch.arange(len(index)), colour] = images[index, 0]
        return Grouped(painted, y, colour)

    return SpuriousSplit(
        grouped(order[:n], agreement),
        grouped(order[-n:], agreement),
        grouped(test, 0.5),
        ("digit 0 to 4", "digit 5 to 9"),
        ("red", "green"),
    )


def dominoes(seed: int, *, agreement: float = AGREEMENT, n: int = 8000) -> SpuriousSplit:
    """Return digits above objects, both classes equal: ``n`` to train on, ``n`` held out, 2,000 to evaluate on.

    Each object is used once. There are fewer digits, so a digit is used several times, but in one part only.
    """
    objects, digits, rng = image_data("cifar10"), image_data("mnist"), np.random.default_rng(seed)
    known, test = objects.train, [objects.rank, objects.evaluate]
    halves = _balanced(known.labels, n, rng)
    tests = torch.cat([part.images for part in test]), torch.cat([part.labels for part in test])
    digit_parts = [
        (digits.train.images[0::2], digits.train.labels[0::2]),
        (digits.train.images[1::2], digits.train.labels[1::2]),
        (
            torch.cat([digits.rank.images, digits.evaluate.images]),
            torch.cat([digits.rank.labels, digits.evaluate.labels]),
        ),
    ]

    def grouped(images: Tensor, labels: Tensor, above: tuple[Tensor, Tensor], share: float) -> Grouped:
        y = _is_animal(labels)
        digit = _attributes(y, share, rng)
        pools = [np.flatnonzero((above[1] == value).numpy()) for value in (0, 1)]
        drawn = np.array([rng.choice(pools[value]) for value in digit.tolist()])
        top = pad(_zero_to_one(above[0])[drawn], (2, 2, 2, 2)).expand(-1, 3, -1, -1)
        return Grouped(torch.cat([2 * top - 1, images], dim=2), y, digit)

    train, held_out = (grouped(known.images[half], known.labels[half], above, agreement)
                       for half, above in zip(halves, digit_parts, strict=False))  # fmt: skip
    both = _balanced(tests[1], 2_000, rng)[0]
    evaluate = grouped(tests[0][both], tests[1][both], digit_parts[2], 0.5)
    return SpuriousSplit(train, held_out, evaluate, ("vehicle", "animal"), ("digit 0 above", "digit 1 above"))


class SpuriousNetwork(nn.Module):
    """Three convolutions with batch norm, a mean over positions, 64 features, a linear layer for the two classes."""

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 64)) -> None:
        super().__init__()
        widths = (3, *channels)
        blocks = OrderedDict[str, nn.Module]()
        for k in range(3):
            kernel, stride = (5, 2) if k == 0 else (3, 1)
            blocks[f"conv{k + 1}"] = nn.Conv2d(widths[k], widths[k + 1], kernel, stride=stride, padding=kernel // 2)
            blocks[f"norm{k + 1}"] = nn.BatchNorm2d(widths[k + 1])
            blocks[f"relu{k + 1}"] = nn.ReLU()
            if k < 2:
                blocks[f"pool{k + 1}"] = nn.MaxPool2d(2)
        blocks["mean"] = nn.AdaptiveAvgPool2d(1)
        blocks["flatten"] = nn.Flatten()
        self.features = nn.Sequential(blocks)
        self.classifier = nn.Linear(channels[-1], 2)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``logits [n, 2]`` of ``images [n, 3, height, width]``."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


DATA: dict[str, Callable[..., SpuriousSplit]] = {"coloured MNIST": coloured_mnist, "dominoes": dominoes}
EPOCHS = {"coloured MNIST": 15, "dominoes": 10}
IMAGES = {"coloured MNIST": 4_000, "dominoes": 8_000}
FLOOR = 0.90
"""Least accuracy on held-out images of the training agreement."""


@cache
def spurious_split(name: str, seed: int, scale: Scale = Scale.NORMAL) -> SpuriousSplit:
    """Return the parts of the set ``name`` for one seed; at quick scale with 1,000 training images."""
    return DATA[name](seed, n=scale.pick(1_000, IMAGES[name]))


def spurious_network(name: str, seed: int, scale: Scale = Scale.NORMAL) -> Trained:
    """Return the network trained on the set ``name`` by empirical risk, and its accuracy on the held-out part."""
    epochs, n = scale.pick(2, EPOCHS[name]), scale.pick(1_000, IMAGES[name])

    def make() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return SpuriousNetwork()

    def fit(network: nn.Module) -> None:
        part = spurious_split(name, seed, scale).train
        fit_classifier(network, part.images, part.labels, epochs=epochs, seed=seed, batch=64, show_progress=False)

    def held_out(network: nn.Module) -> float:
        part = spurious_split(name, seed, scale).held_out
        return accuracy(network, part.images, part.labels)

    key = f"spurious-{name.replace(' ', '_')}-{n}images-{epochs}epochs-seed{seed}"
    return trained(key, make, fit, evaluate=held_out, floor=scale.pick(0.0, FLOOR))


def _attributes(labels: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Return random attributes ``[n]`` that equal the class for exactly a ``share`` of each class (rounded)."""
    attributes = labels.clone()
    for c in (0, 1):
        members = np.flatnonzero((labels == c).numpy())
        against = rng.permutation(members)[: round((1 - share) * len(members))]
        attributes[against] = 1 - c
    return attributes


def _balanced(labels: Tensor, n: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Return two disjoint index arrays of ``n`` samples, both classes equally often."""
    animal = _is_animal(labels).numpy()
    members = [rng.permutation(np.flatnonzero(animal == c)) for c in (0, 1)]
    half = n // 2
    if 2 * half > min(map(len, members)):
        raise ValueError(f"two parts of {n} need {2 * half} samples of each class; got {[*map(len, members)]}")
    return [rng.permutation(np.concatenate([m[k * half : (k + 1) * half] for m in members])) for k in range(2)]


def _is_animal(labels: Tensor) -> Tensor:
    return (~torch.isin(labels, torch.tensor(VEHICLES))).long()


def _zero_to_one(images: Tensor) -> Tensor:
    return (images - images.amin()) / (images.amax() - images.amin())


if __name__ == "__main__":
    for data in DATA:
        result = spurious_network(data, int(sys.argv[1]))
        print(f"{data}, seed {sys.argv[1]}: {result.accuracy:.3f} in {result.seconds:.0f} s", flush=True)
