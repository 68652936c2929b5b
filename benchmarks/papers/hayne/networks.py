"""Networks for 32 x 32 images after AlexNet and MobileNetV2; every activation is a module of its own."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.papers.common.classifiers import CIFAR_FLOOR
from benchmarks.papers.common.data import images
from benchmarks.papers.common.training import Trained, accuracy, fit_classifier, trained

EPOCHS = 20


def small_alexnet(*, classes: int = 10, seed: int = 0) -> nn.Sequential:
    """Return an AlexNet-like network: five convolutions without batch norm, two dense layers with dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for k, (before, after) in enumerate([(3, 48), (48, 96), (96, 128), (128, 128), (128, 96)], start=1):
            layers[f"conv{k}"] = nn.Conv2d(before, after, kernel_size=5 if k == 1 else 3, padding=2 if k == 1 else 1)
            layers[f"relu{k}"] = nn.ReLU()
            if k in (1, 2, 5):
                layers[f"pool{k}"] = nn.MaxPool2d(3, stride=2, padding=1)
        layers["flatten"] = nn.Flatten()
        layers["dropout6"] = nn.Dropout(0.3)
        layers["dense6"] = nn.Linear(96 * 16, 256)
        layers["relu6"] = nn.ReLU()
        layers["dropout7"] = nn.Dropout(0.3)
        layers["dense7"] = nn.Linear(256, 128)
        layers["relu7"] = nn.ReLU()
        layers["classifier"] = nn.Linear(128, classes)
        return nn.Sequential(layers)


class InvertedResidual(nn.Module):
    """Expand by 6, convolve by channel, project linearly; a shortcut where the shapes allow it."""

    def __init__(self, before: int, after: int, stride: int, expansion: int = 6) -> None:
        super().__init__()
        inner = before * expansion
        self.expand = nn.Sequential(nn.Conv2d(before, inner, 1, bias=False), nn.BatchNorm2d(inner))
        self.act1 = nn.ReLU6()
        self.depthwise = nn.Sequential(
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False), nn.BatchNorm2d(inner)
        )
        self.act2 = nn.ReLU6()
        self.project = nn.Sequential(nn.Conv2d(inner, after, 1, bias=False), nn.BatchNorm2d(after))
        self.shortcut = stride == 1 and before == after

    def forward(self, features: Tensor) -> Tensor:
        inner: Tensor = self.project(self.act2(self.depthwise(self.act1(self.expand(features)))))
        return inner + features if self.shortcut else inner


def small_mobilenet(*, classes: int = 10, seed: int = 0) -> nn.Sequential:
    """Return a MobileNetV2-like network of six inverted residual blocks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shapes = [(16, 24, 1), (24, 24, 1), (24, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)]
        stem = OrderedDict(conv=nn.Conv2d(3, 16, 3, 2, 1, bias=False), norm=nn.BatchNorm2d(16), act=nn.ReLU6())
        head = OrderedDict(conv=nn.Conv2d(64, 256, 1, bias=False), norm=nn.BatchNorm2d(256), act=nn.ReLU6())
        return nn.Sequential(
            OrderedDict(
                stem=nn.Sequential(stem),
                blocks=nn.Sequential(*(InvertedResidual(*shape) for shape in shapes)),
                head=nn.Sequential(head),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                classifier=nn.Linear(256, classes),
            )
        )


NETWORKS = {"alexnet": small_alexnet, "mobilenet": small_mobilenet}


def further(kind: str, seed: int) -> Trained:
    """Return an ``alexnet`` or ``mobilenet`` trained on 20,000 images of CIFAR-10, and its accuracy on ``evaluate``."""
    split = images("cifar10")

    def fit(network: nn.Module) -> None:
        fit_classifier(network, *split.train, epochs=EPOCHS, seed=seed, flip=True, crop=2, weight_decay=1e-2)

    return trained(
        f"cifar10-{kind}-{EPOCHS}epochs-{len(split.train.labels)}images-seed{seed}",
        partial(NETWORKS[kind], seed=seed),
        fit,
        evaluate=lambda network: accuracy(network, *split.evaluate),
        floor=CIFAR_FLOOR,
    )
