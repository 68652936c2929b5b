"""Trained image classifiers that several replications share.

``python -m benchmarks.papers.common.classifiers vgg 0`` trains one beforehand.
"""

from __future__ import annotations

import sys
from functools import partial

from torch import nn

from benchmarks.papers.common.data import first, images, joined
from benchmarks.papers.common.networks import mlp, small_resnet, small_vgg
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.common.training import Trained, accuracy, fit_classifier, trained

CONVOLUTIONAL = {"vgg": small_vgg, "resnet": small_resnet}
EPOCHS = 10
CIFAR_FLOOR = 0.70

MLP_FLOORS = {"mnist": 0.94, "fashion": 0.82, "cifar10": 0.40}
MLP_RECIPES = {
    "mnist": {"epochs": 15, "batch": 64, "max_lr": 3e-3},
    "fashion": {"epochs": 15, "batch": 64, "max_lr": 3e-3},
    "cifar10": {"epochs": 8, "batch": 128, "max_lr": 1e-3},
}
"""Three seconds per network (CIFAR-10: six), so 90 networks are trained in five minutes."""


def convolutional(kind: str, seed: int, scale: Scale = Scale.NORMAL) -> Trained:
    """Return a ``vgg`` or ``resnet`` trained on 20,000 images of CIFAR-10, and its accuracy on the ``evaluate`` part.

    At quick scale it has a quarter of the width, one epoch on 2,000 images and no floor of accuracy.
    """
    if kind not in CONVOLUTIONAL:
        raise ValueError(f"kind must be one of {', '.join(CONVOLUTIONAL)}; got {kind!r}")
    split, quick = images("cifar10"), scale is Scale.QUICK
    train = first(split.train, 2_000) if quick else split.train
    held_out = first(split.evaluate, 500) if quick else split.evaluate
    epochs, width = scale.pick(1, EPOCHS), scale.pick(8, 32)

    def fit(network: nn.Module) -> None:
        options = {"flip": True, "crop": 2, "max_lr": 5e-3, "weight_decay": 1e-2, "bfloat16": True}
        fit_classifier(network, *train, epochs=epochs, seed=seed, **options)

    return trained(
        f"cifar10-{kind}{width}-{epochs}epochs-{len(train.labels)}images-seed{seed}",
        partial(CONVOLUTIONAL[kind], width=width, seed=seed),
        fit,
        evaluate=lambda network: accuracy(network, *held_out),
        floor=scale.pick(0.0, CIFAR_FLOOR),
    )


def dense(data: str, activation: str, seed: int, scale: Scale = Scale.NORMAL) -> Trained:
    """Return a 100-100 MLP trained on ``data``, and its accuracy on all test images (``rank`` and ``evaluate``).

    At quick scale it has 30-30 units, one epoch on 2,000 images and no floor of accuracy.
    """
    if data not in MLP_FLOORS:
        raise ValueError(f"data must be one of {', '.join(MLP_FLOORS)}; got {data!r}")
    split = images(data)
    train, test = first(split.train, scale.pick(2_000, 20_000)), joined(split.rank, split.evaluate)
    recipe = {**MLP_RECIPES[data], **scale.pick({"epochs": 1}, {})}
    hidden = scale.pick((30, 30), (100, 100))

    def fit(network: nn.Module) -> None:
        fit_classifier(network, *train, seed=seed, show_progress=False, **recipe)

    return trained(
        f"{data}-mlp{hidden[0]}-{activation}-{recipe['epochs']}epochs-batch{recipe['batch']}-lr{recipe['max_lr']}"
        f"-{len(train.labels)}images-seed{seed}",
        lambda: mlp(train.images[0].numel(), hidden=hidden, activation=activation, seed=seed),
        fit,
        evaluate=lambda network: accuracy(network, *test),
        floor=scale.pick(0.0, MLP_FLOORS[data]),
    )


if __name__ == "__main__":
    result = convolutional(sys.argv[1], int(sys.argv[2]))
    print(f"{sys.argv[1]} seed {sys.argv[2]}: accuracy {result.accuracy:.3f} in {result.seconds:.0f} s")
