"""The networks of the replication of Hayne et al., with their layers, images and metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from benchmarks.papers.common.classifiers import convolutional
from benchmarks.papers.common.data import Labelled, first, image_net, images
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.common.training import accuracy
from benchmarks.papers.hayne.efficientnet import efficientnet_lite0, standardised
from benchmarks.papers.hayne.networks import further
from benchmarks.papers.hayne.superclasses import right_superclass, superclass_images, superclass_margin
from captum_ablate.ablation import metrics
from captum_ablate.ablation.metrics import Metric

SEEDS = 3


@dataclass(frozen=True)
class Material:
    """A trained network, the layers to ablate, and two disjoint parts of the data.

    Statistics come from ``rank``, deficits from ``evaluate``. ``margin`` is the label's output minus the largest other
    output; above 0 the answer is right. At most ``singles`` units of a layer are ablated one at a time, a seeded sample
    where it has more.
    """

    network: nn.Module
    layers: tuple[str, ...]
    rank: Labelled
    evaluate: Labelled
    accuracy: float
    seconds: float
    right: Metric = metrics.accuracy
    margin: Metric = metrics.margin
    batch: int = 500
    singles: int = 10_000


@dataclass(frozen=True)
class Subject:
    """One network, built by ``make``. Networks of one ``family`` differ by seed alone; ``key`` names each."""

    key: str
    family: str
    make: Callable[[], Material]


def subjects(scale: Scale) -> list[Subject]:
    """Return the networks of this scale."""
    seeds = scale.pick(1, SEEDS)
    found = [
        Subject(f"{kind}, seed {seed}", kind, lambda kind=kind, seed=seed: _cifar(kind, seed, scale))
        for kind in ("vgg", "resnet", *scale.pick((), (), ("alexnet", "mobilenet")))
        for seed in range(seeds)
    ]
    if scale is not Scale.QUICK:
        found.append(Subject("EfficientNet-Lite0", "EfficientNet-Lite0", lambda: _efficientnet(scale)))
    return found


LAYERS = {
    "vgg": ("relu3", "relu4", "relu5"),
    "resnet": ("block2.relu2", "block3.relu1", "block3.relu2"),
    "alexnet": ("relu3", "relu5", "relu6"),
    "mobilenet": ("blocks.3.act2", "blocks.5.act2", "head.act"),
}
"""Outputs of activation functions with enough units for tiles; ``relu2`` of the ResNet is the output of its block."""


def _cifar(kind: str, seed: int, scale: Scale) -> Material:
    trained = convolutional(kind, seed, scale) if kind in ("vgg", "resnet") else further(kind, seed)
    split = images("cifar10")
    return Material(
        trained.network,
        LAYERS[kind][1:] if scale is Scale.QUICK else LAYERS[kind],
        first(split.rank, scale.pick(300, 2_000, 5_000)),
        first(split.evaluate, scale.pick(100, 1_000, 5_000)),
        trained.accuracy,
        trained.seconds,
    )


def _efficientnet(scale: Scale) -> Material:
    network = efficientnet_lite0()
    rank, evaluate = (Labelled(standardised(part.images), part.labels) for part in superclass_images())
    data = image_net()
    return Material(
        network,
        scale.pick(
            (),
            ("blocks.15.inner.act2", "head.act"),
            ("blocks.10.inner.act2", "blocks.13.inner.act2", "blocks.15.inner.act2", "head.act"),
        ),
        rank,
        evaluate,
        accuracy(network, standardised(data.images), data.labels, batch=100),
        0.0,
        right=right_superclass,
        margin=superclass_margin,
        batch=100,
        singles=scale.pick(20, 200, 2_000),
    )
