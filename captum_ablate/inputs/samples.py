"""Data sets, small networks and training of the demo: train, rank and evaluate on disjoint images."""

from __future__ import annotations

import io
import os
import time
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import trange

from captum_ablate.inputs.threads import drawing

Array = npt.NDArray[Any]

DATA_FOLDER = "CAPTUM_ABLATE_DATA"
"""Environment variable: the folder with the ``FILES``."""
FILES = {"mnist": "mnist10k.npz", "fashion": "fashion10k.npz", "cifar10": "cifar10.npz"}

TRAINED, HELD_OUT = 20_000, 2_000
"""Most images used: training takes minutes, and a gradient method 50 passes for each ranking image."""

BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """Length of training on a data set, and whether to mirror images at random."""

    epochs: int
    flip: bool = False


RECIPES = {
    "digits": Recipe(epochs=20),  # 98.7 %, in a second; 10 epochs 98.3 %, 40 no more
    "mnist": Recipe(epochs=4),  # 98.4 %; 2 epochs 97.7 %, 8 epochs 98.7 % in twice the time
    "fashion": Recipe(epochs=8),  # 90 %; 4 epochs 88.5 %, 12 no more
    "cifar10": Recipe(epochs=8, flip=True),  # 71 %, in two minutes; 4 epochs 67.5 %
}
"""Epochs with the accuracy of ``small_network`` on the held-out images, mean of seeds; seconds on 2 idle cores.
Only CIFAR-10 is mirrored: it has few images for its variety, and unlike a digit, a mirrored object stays one."""


class Labelled(NamedTuple):
    """Standardised ``images [n, channels, height, width]`` and the class of each, ``labels [n]`` int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Split:
    """Three disjoint parts: ``train`` the network, ``rank`` its units, ``evaluate`` the ranking."""

    name: str
    train: Labelled
    rank: Labelled
    evaluate: Labelled
    class_names: tuple[str, ...]


class _Raw(NamedTuple):
    """Images as stored, uint8 or float ``[n, height, width]`` or ``[n, height, width, channels]``."""

    train: Array
    train_labels: Array
    test: Array
    test_labels: Array
    class_names: tuple[str, ...]


def load(name: str, *, held_out: int = HELD_OUT) -> Split:
    """Return the data set ``digits``, ``mnist``, ``fashion`` or ``cifar10``; the same images every time.

    At most ``held_out`` images are held out of the training, half to rank and half to evaluate.

    Digits come with scikit-learn. The others come from the folder that the environment variable
    ``CAPTUM_ABLATE_DATA`` names, else torchvision downloads them into ``~/.cache/captum_ablate``.

    Raises:
        ValueError: if there is no such data set.

    Example:
        >>> from captum_ablate import demo_data
        >>> split = demo_data.load("digits")
        >>> tuple(split.train.images.shape[1:]), len(split.class_names)
        ((1, 8, 8), 10)
    """
    if name not in RECIPES:
        raise ValueError(f"the demo data are {', '.join(RECIPES)}; got {name!r}")
    raw = _digits() if name == "digits" else _stored(name)
    train, held = _at_most(TRAINED, raw.train_labels), _at_most(held_out, raw.test_labels)
    rank, evaluate = (held[half] for half in _parted(raw.test_labels[held], len(held) // 2))
    std, mean = torch.std_mean(_channels_first(raw.train[train]), dim=(0, 2, 3), correction=0, keepdim=True)

    def labelled(images: Array, labels: Array) -> Labelled:
        return Labelled((_channels_first(images) - mean) / std, torch.from_numpy(labels.astype(np.int64)))

    return Split(
        name=name,
        train=labelled(raw.train[train], raw.train_labels[train]),
        rank=labelled(raw.test[rank], raw.test_labels[rank]),
        evaluate=labelled(raw.test[evaluate], raw.test_labels[evaluate]),
        class_names=raw.class_names,
    )


class SmallNetwork(nn.Module):
    """Two convolutions and two linear layers; every ReLU is a module of its own, used once and not in place.

    DeepLift and LRP need that. Flattening is no module, because LRP has no rule for one.
    """

    def __init__(self, channels: int, size: int, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(channels, 32, kernel_size=3, padding=1),
                relu1=nn.ReLU(),
                pool1=nn.MaxPool2d(2),
                conv2=nn.Conv2d(32, 64, kernel_size=3, padding=1),
                relu2=nn.ReLU(),
                pool2=nn.MaxPool2d(2),
            )
        )
        self.hidden = nn.Sequential(
            OrderedDict(linear=nn.Linear(64 * (size // 4) ** 2, 128), relu=nn.ReLU()),
        )
        self.classifier = nn.Linear(128, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``logits [n, classes]`` of ``images [n, channels, size, size]``."""
        logits: Tensor = self.classifier(self.hidden(self.features(images).flatten(1)))
        return logits


def small_network(channels: int, size: int, classes: int, *, seed: int = 0) -> SmallNetwork:
    """Return an untrained network with layers of 32 and 64 channels and 128 dense units.

    ``features.relu2`` (64 channels) and ``hidden.relu`` (128 units) are the layers to look at.

    Example:
        >>> import torch
        >>> from captum_ablate import demo_data
        >>> network = demo_data.small_network(channels=1, size=8, classes=10)
        >>> tuple(network(torch.zeros(2, 1, 8, 8)).shape)
        (2, 10)
    """
    with drawing, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallNetwork(channels, size, classes)


def train(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    seed: int = 0,
    flip: bool = False,
    show_progress: bool = True,
) -> float:
    """Train ``network`` with Adam and cross-entropy, leave it in evaluation mode, return the seconds.

    ``flip`` mirrors every image with probability 1/2.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters())
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
    start = time.perf_counter()
    network.train()
    bar = trange(epochs, desc="training", unit="epoch", disable=not show_progress)
    for _ in bar:
        total = 0.0
        for index in torch.split(torch.randperm(len(images), generator=generator), BATCH):
            batch = images[index]
            if flip:
                mirrored = torch.rand(len(index), generator=generator) < 0.5
                batch = torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
            loss = cross_entropy(network(batch), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(index)
        bar.set_postfix(loss=f"{total / len(images):.3f}")
    network.eval().zero_grad()
    return time.perf_counter() - start


def _parted(labels: Array, size: int) -> tuple[Array, Array]:
    """Return the indices of ``size`` samples, every class in proportion, and those of the rest."""
    first, rest = train_test_split(np.arange(len(labels)), train_size=size, stratify=labels, random_state=0)
    return first, rest


def _at_most(size: int, labels: Array) -> Array:
    """Return indices in a seeded random order: stored images may be sorted by class."""
    return np.random.default_rng(0).permutation(len(labels)) if len(labels) <= size else _parted(labels, size)[0]


def _channels_first(images: Array) -> Tensor:
    """Return float32 ``[n, channels, height, width]``."""
    with_channels = torch.from_numpy(images if images.ndim == 4 else images[..., None])
    return with_channels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def _digits() -> _Raw:
    digits = load_digits()
    train, test = _parted(digits.target, 997)
    images, labels = digits.images, digits.target
    return _Raw(images[train], labels[train], images[test], labels[test], tuple(map(str, digits.target_names)))


def _stored(name: str) -> _Raw:
    folder = os.environ.get(DATA_FOLDER)
    if not folder:
        return _downloaded(name)
    file = Path(folder) / FILES[name]
    if not file.is_file():
        raise FileNotFoundError(
            f"{DATA_FOLDER} names the folder {folder}, which has no {file.name}; "
            f"unset {DATA_FOLDER} to download {name} through torchvision"
        )
    with np.load(file) as stored:
        if name == "cifar10":
            return _jpegs(stored)
        images, labels, train, test = (stored[key] for key in ("images", "labels", "train", "test"))
        names = stored["class_names"] if "class_names" in stored else range(10)
    return _Raw(images[train], labels[train], images[test], labels[test], tuple(map(str, names)))


def _jpegs(stored: Any) -> _Raw:
    from PIL import Image  # imported late: only this data set needs it

    def decode(part: str) -> Array:
        data, offsets = stored[f"{part}_jpeg"].tobytes(), stored[f"{part}_offsets"]
        files = (io.BytesIO(data[a:b]) for a, b in pairwise(offsets))
        return np.stack([np.asarray(Image.open(file)) for file in files])

    names = tuple(map(str, stored["class_names"]))
    return _Raw(decode("train"), stored["train_labels"], decode("test"), stored["test_labels"], names)


def _downloaded(name: str) -> _Raw:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ImportError(
            f"the data set {name!r} is downloaded through torchvision, which is not installed: "
            f"pip install captum-ablate[demo], or let {DATA_FOLDER} name a folder that has it"
        ) from error
    make = {"mnist": datasets.MNIST, "fashion": datasets.FashionMNIST, "cifar10": datasets.CIFAR10}[name]
    root = Path.home() / ".cache" / "captum_ablate"
    try:
        train, test = (make(str(root), train=part, download=True) for part in (True, False))
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"the data set {name!r} could not be downloaded ({str(error).splitlines()[0]}); "
            f"let {DATA_FOLDER} name a folder that has {FILES[name]}"
        ) from error
    return _Raw(
        np.asarray(train.data),
        np.asarray(train.targets),
        np.asarray(test.data),
        np.asarray(test.targets),
        tuple(train.classes),
    )
