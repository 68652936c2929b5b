"""The networks of the replications; every activation function is a module of its own, called once, not in place."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


def mlp(
    inputs: int, *, hidden: Sequence[int] = (100, 100), classes: int = 10, activation: str = "relu", seed: int = 0
) -> nn.Sequential:
    """Return linear layers with ``activation`` between them; ``act1``, ``act2``, ... are the hidden layers."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for k, (before, after) in enumerate(pairwise((inputs, *hidden)), start=1):
            layers[f"linear{k}"] = nn.Linear(before, after)
            layers[f"act{k}"] = ACTIVATIONS[activation]()
        layers["classifier"] = nn.Linear(hidden[-1], classes)
        return nn.Sequential(layers)


def small_vgg(*, channels: int = 3, classes: int = 10, width: int = 32, seed: int = 0) -> nn.Sequential:
    """Return a VGG-like network for 32 x 32 images: four convolutions of 32, 64, 128, 128 channels, one dense layer.

    ``relu1`` ... ``relu4`` (channels) and ``relu5`` (128 units) are the layers to study.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        widths = (channels, width, 2 * width, 4 * width, 4 * width)
        for k, (before, after) in enumerate(pairwise(widths), start=1):
            layers[f"conv{k}"] = nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False)
            layers[f"norm{k}"] = nn.BatchNorm2d(after)
            layers[f"relu{k}"] = nn.ReLU()
            layers[f"pool{k}"] = nn.MaxPool2d(2)
        layers["flatten"] = nn.Flatten()
        layers["dense"] = nn.Linear(4 * widths[-1], 4 * width)
        layers["relu5"] = nn.ReLU()
        layers["classifier"] = nn.Linear(4 * width, classes)
        return nn.Sequential(layers)


class Block(nn.Module):
    """Two convolutions and a shortcut; ``relu2`` is the output of the block."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.shortcut = (
            nn.Identity()
            if before == after and stride == 1
            else nn.Sequential(
                nn.Conv2d(before, after, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )
        )
        self.relu2 = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        inner = self.relu1(self.norm1(self.conv1(features)))
        total: Tensor = self.relu2(self.norm2(self.conv2(inner)) + self.shortcut(features))
        return total


class SmallResNet(nn.Module):
    """A stem and three residual blocks of 32, 64 and 128 channels for 32 x 32 images."""

    def __init__(self, channels: int = 3, classes: int = 10, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False),
                norm=nn.BatchNorm2d(width),
                relu=nn.ReLU(),
                pool=nn.MaxPool2d(2),
            )
        )
        self.block1 = Block(width, width, stride=1)
        self.block2 = Block(width, 2 * width, stride=2)
        self.block3 = Block(2 * width, 4 * width, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(4 * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(self.block3(self.block2(self.block1(self.stem(images))))).flatten(1))
        return logits


def small_resnet(*, channels: int = 3, classes: int = 10, width: int = 32, seed: int = 0) -> SmallResNet:
    """Return a small ResNet; ``block1.relu1``, ``block1.relu2``, ... ``block3.relu2`` are the layers to study."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallResNet(channels, classes, width)
