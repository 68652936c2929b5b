"""The networks of the study of conductance, with their layers and the images that they classify correctly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.papers.common.classifiers import convolutional
from benchmarks.papers.common.data import Labelled, images
from benchmarks.papers.common.scale import Scale

LAYERS = {
    "vgg": ("relu1", "relu2", "relu3", "relu4"),
    "resnet": ("stem.relu", *(f"block{b}.relu{r}" for b in (1, 2, 3) for r in (1, 2))),
}
"""All layers of filters, from input to output; their filters are ranked together."""

MIDDLE = {"vgg": ("relu3", "relu4"), "resnet": ("block2.relu2", "block3.relu1")}
"""Layers that are studied alone: late ones, but not the last, after which the ResNet is linear."""


@dataclass(frozen=True)
class Subject:
    """A trained network and the layers to study."""

    kind: str
    seed: int
    network: nn.Module
    accuracy: float
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.kind} {self.seed}"

    @property
    def layers(self) -> list[nn.Module]:
        """All layers of filters."""
        return [self.network.get_submodule(name) for name in LAYERS[self.kind]]

    @property
    def middle(self) -> dict[str, nn.Module]:
        """The two layers that are studied alone, by name."""
        return {name: self.network.get_submodule(name) for name in MIDDLE[self.kind]}

    def correct(self, n: int) -> Labelled:
        """Return the first ``n`` images of the evaluation part that the network classifies correctly."""
        evaluate = images("cifar10").evaluate
        with torch.no_grad():
            right = torch.cat(
                [
                    self.network(x).argmax(1) == y
                    for x, y in zip(evaluate.images.split(500), evaluate.labels.split(500), strict=True)
                ]
            )
        rows = right.nonzero()[:n, 0]
        return Labelled(evaluate.images[rows], evaluate.labels[rows])


def subjects(scale: Scale) -> Iterator[Subject]:
    """Yield a VGG-like network and a ResNet; one VGG-like at quick scale, three of each at full."""
    one, some = {"vgg": 1}, {"vgg": 1, "resnet": 1}
    for kind, seeds in scale.pick(one, some, {"vgg": 3, "resnet": 3}).items():
        for seed in range(seeds):
            found = convolutional(kind, seed, scale)
            yield Subject(kind, seed, found.network, found.accuracy, found.seconds)


def per_class(data: Labelled, n: int) -> Labelled:
    """Return the first ``n`` images of every class, in the order of ``data``."""
    rows = torch.cat([(data.labels == c).nonzero()[:n, 0] for c in data.labels.unique()]).sort().values
    return Labelled(data.images[rows], data.labels[rows])


def of_classes(labels: Tensor, classes: tuple[int, ...]) -> Tensor:
    """Return the rows of ``labels [n]`` whose label is one of ``classes``."""
    return torch.isin(labels, torch.tensor(classes)).nonzero()[:, 0]
