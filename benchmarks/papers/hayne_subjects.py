"""The networks that the replication of Hayne et al. looks at, with their layers, images and metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.papers import superclasses
from benchmarks.papers.classifiers import convolutional
from benchmarks.papers.data import Labelled, first, image_net, images
from benchmarks.papers.efficientnet import efficientnet_lite0, standardised
from benchmarks.papers.hayne_networks import further
from benchmarks.papers.scale import Scale
from benchmarks.papers.training import accuracy
from captum_ablate.ablation import metrics
from captum_ablate.ablation.metrics import Metric

SEEDS = 3


@dataclass(frozen=True)
class Material:
    """A trained network, the layers to look at, and two disjoint parts: statistics on one, deficits on the other.

    ``margin`` is the label's output minus the largest other one; above 0 the answer is right. ``singles`` is the most
    units of a layer to ablate one at a time (a seeded sample of them beyond that).
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
    """One network, made when asked for: ``key`` names it; those of one ``family`` differ by seed alone."""

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
"""Outputs of activation functions with enough units to tile; a ``relu2`` of the ResNet is the output of its block."""


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


def right_superclass(outputs: Tensor, target: Tensor) -> Tensor:
    """Return 1 where the superclass of the largest joined logit is the label's, else 0, ``[n]``."""
    return metrics.accuracy(superclasses.joined_logits(outputs), target)


def superclass_margin(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the label's joined logit minus the largest other one, ``[n]``."""
    return metrics.margin(superclasses.joined_logits(outputs), target)


MOST_OF_A_SUPERCLASS = 118
"""The dogs are 118; of the 518 artifacts as many are drawn."""


def superclass_images() -> tuple[Labelled, Labelled]:
    """Return the halves of the images of each superclass, uint8, labelled with its number; no class is in both."""
    data, generator = image_net(), torch.Generator().manual_seed(0)
    halves: tuple[list[Tensor], list[Tensor]] = ([], [])
    for indices in superclasses.members().values():
        drawn = indices[torch.randperm(len(indices), generator=generator)][:MOST_OF_A_SUPERCLASS]
        for half, part in zip(halves, drawn.tensor_split(2), strict=True):
            half.append(part)
    of, (rank, evaluate) = superclasses.superclass_of(), (torch.cat(half) for half in halves)
    return Labelled(data.images[rank], of[rank]), Labelled(data.images[evaluate], of[evaluate])


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


TORCHVISION = {
    "alexnet": ("features.7", "features.11", "classifier.5"),
    "vgg16": ("features.15", "features.22", "features.29"),
    "mobilenet_v2": ("features.10.conv.1", "features.14.conv.1", "features.18"),
    "resnet101": ("layer3.11", "layer3.22", "layer4.1"),
}
"""The four networks of the paper, as torchvision has them, and layers of ours: which the paper took we do not know.
Outputs of activation functions; of ResNet-101 outputs of blocks, since a block calls one ReLU three times."""


def torchvision_subjects(folder: Path, weights: str, *, classes: int, images_per_class: int) -> list[Subject]:
    """Return torchvision's networks on the images of ``folder``, one folder of images per class, sorted by WordNet id.

    ``weights`` is a folder with ``alexnet.pth``, ... (state dicts), or "DEFAULT", which torchvision downloads.
    ``classes`` of the folders are drawn (seeded), with up to ``images_per_class`` images each, half for statistics and
    half for deficits.
    """
    return [
        Subject(name, name, lambda name=name: _torchvision(name, folder, weights, classes, images_per_class))
        for name in TORCHVISION
        if weights == "DEFAULT" or (Path(weights) / f"{name}.pth").is_file()
    ]


def _torchvision(name: str, folder: Path, weights: str, classes: int, images_per_class: int) -> Material:
    import torchvision

    if weights == "DEFAULT":
        network = getattr(torchvision.models, name)(weights="DEFAULT").eval()
    else:
        network = getattr(torchvision.models, name)().eval()
        network.load_state_dict(torch.load(Path(weights) / f"{name}.pth", weights_only=True))
    rank, evaluate = _folder_images(folder, classes, images_per_class)
    return Material(
        network,
        TORCHVISION[name],
        rank,
        evaluate,
        accuracy(network, *evaluate, batch=50),
        0.0,
        batch=50,
        singles=500,
    )


def _folder_images(folder: Path, classes: int, images_per_class: int) -> tuple[Labelled, Labelled]:
    """Return the halves of the images of some classes, as torchvision's networks want them."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms.v2 import CenterCrop, Compose, Normalize, Resize, ToDtype, ToImage

    prepare = Compose(
        [
            ToImage(),
            Resize(256, antialias=True),
            CenterCrop(224),
            ToDtype(torch.float32, scale=True),
            Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    data = ImageFolder(str(folder), prepare)
    if len(data.classes) != 1000:
        raise ValueError(
            f"{folder} must hold a folder of images for each of the 1,000 classes of ImageNet, named so that their "
            f"order is the standard one (WordNet ids); it holds {len(data.classes)} folders"
        )
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(1000, generator=generator)[:classes].sort().values.tolist()
    targets = torch.tensor(data.targets)
    halves: tuple[list[int], list[int]] = ([], [])
    for label in chosen:
        own = (targets == label).nonzero().flatten()
        own = own[torch.randperm(len(own), generator=generator)][:images_per_class]
        for half, part in zip(halves, own.tensor_split(2), strict=True):
            half.extend(part.tolist())
    return tuple(_loaded(data, half) for half in halves)  # type: ignore[return-value]  # two halves


def _loaded(data: Any, numbers: list[int]) -> Labelled:
    def each() -> Iterator[tuple[Tensor, int]]:
        for number in numbers:
            yield data[number]

    inputs, labels = zip(*each(), strict=True)
    return Labelled(torch.stack(inputs), torch.tensor(labels))
