"""A data set of torchvision that is on this machine: its test part, or the part that comes nearest."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from typing import Any

from captum_ablate.commands.images import Images, Preparation
from captum_ablate.commands.model_source import TORCHVISION, import_torchvision

PARTS = ("test", "val", "valid")
"""Values of ``split`` that mean images which the model was not trained on; the first one that is known counts."""


def read(name: str, option: str, preparation: Preparation) -> Images:
    """Return the images of ``NAME:ROOT``, such as ``CIFAR10:data``.

    Raises:
        ValueError: if there is no such data set, or it is not in the folder, or has no classes. The text names
            ``option``.
    """
    datasets = import_torchvision(f"{option} {TORCHVISION}{name}").datasets
    kind, colon, root = name.partition(":")
    if not colon or not root:
        raise ValueError(f"{option} {TORCHVISION}{name} must name a data set and its folder: {TORCHVISION}CIFAR10:data")
    cls = getattr(datasets, kind, None) if kind in datasets.__all__ else None
    if cls is None:
        near = ", ".join(get_close_matches(kind, datasets.__all__, n=3, cutoff=0.4)) or "CIFAR10, MNIST, ImageNet, ..."
        raise ValueError(f"torchvision has no data set {kind!r} ({option}); nearest: {near}")
    dataset = _held_out(cls, root, f"{option} {TORCHVISION}{name}")
    targets = next((list(getattr(dataset, a)) for a in ("targets", "labels", "_labels") if hasattr(dataset, a)), None)
    if targets is None:
        targets = [dataset[k][1] for k in range(len(dataset))]
    try:
        labels = [int(one) for one in targets]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{option} {TORCHVISION}{name} has no class for each image, as this command needs") from error
    names = [f"image {k} of {kind}" for k in range(len(labels))]
    return Images(names, labels, lambda k: dataset[k][0], preparation)


def _held_out(cls: Any, root: str, what: str) -> Any:
    """Return the data set from files that are there: nothing is downloaded."""
    takes = inspect.signature(cls).parameters
    choices: list[dict[str, Any]] = [{}]
    if "train" in takes:
        choices = [{"train": False}]
    elif "split" in takes:
        choices = [{"split": part} for part in PARTS]
    for number, options in enumerate(choices):
        try:
            return cls(root, **options)
        except Exception as error:  # data sets raise errors of many types
            is_unknown = isinstance(error, ValueError) and "split" in str(error)
            if not is_unknown or number == len(choices) - 1:
                raise ValueError(
                    f"{what} cannot be read: {type(error).__name__}: {' '.join(str(error).split())}; download it "
                    f"beforehand: torchvision.datasets.{cls.__name__}({root!r}, download=True)"
                ) from error
    raise AssertionError("a loop over at least one choice returns or raises")
