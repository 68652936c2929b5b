"""The four networks of the paper, as torchvision has them, on a user's folder of ImageNet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.papers.common.data import Labelled
from benchmarks.papers.common.training import accuracy
from benchmarks.papers.hayne.subjects import Material, Subject

TORCHVISION = {
    "alexnet": ("features.7", "features.11", "classifier.5"),
    "vgg16": ("features.15", "features.22", "features.29"),
    "mobilenet_v2": ("features.10.conv.1", "features.14.conv.1", "features.18"),
    "resnet101": ("layer3.11", "layer3.22", "layer4.1"),
}
"""The four networks of the paper, as torchvision has them, and our choice of layers (the paper's is not known to us).
Outputs of activation functions; of ResNet-101 outputs of blocks, since a block calls one ReLU three times."""


def torchvision_subjects(folder: Path, weights: str, *, classes: int, images_per_class: int) -> list[Subject]:
    """Return torchvision's networks on the images of ``folder``, one folder of images per class, sorted by WordNet id.

    ``weights`` is a folder with ``alexnet.pth``, ... (state dicts), or "DEFAULT": torchvision downloads them. So many
    ``classes`` are drawn (seeded), with up to ``images_per_class`` images each: half for statistics, half for deficits.
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
    """Return both halves of the images of the drawn classes, prepared as torchvision's networks expect them."""
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
