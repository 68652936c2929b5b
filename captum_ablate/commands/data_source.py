"""The data that ``--data`` names: an object of the user's code, a file, a folder of images, or a data set."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from captum_ablate.commands import data_file, image_folder, images, torchvision_data, user_code
from captum_ablate.commands.model_source import TORCHVISION

HELP = (
    "your data: MODULE:NAME, a loader of batches (*inputs, labels), a tuple (inputs, labels), or a function without "
    "arguments that returns either; a file, .npz with arrays inputs and labels, or .pt with (inputs, labels); "
    "imagefolder:PATH, a subfolder for each class; or torchvision:CIFAR10:ROOT, the test part of a data set on disk"
)

FOLDER_SIZE = 224
"""Side of the images of a folder, unless ``--size`` says another; what torchvision's networks were trained on."""


def read(
    name: str,
    option: str,
    options: argparse.Namespace,
    *,
    needs_labels: bool = False,
    own: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the data that ``name`` means; images stay unread ``Images``, prepared by ``options``, or else ``own``.

    Raises:
        ValueError, TypeError, ImportError, OSError: if there are none, or they have no labels where a command
            ``needs_labels``. The text names ``option``.
    """
    if name.startswith(image_folder.PREFIX):
        folder = name.removeprefix(image_folder.PREFIX)
        return image_folder.read(folder, option, images.preparation(options, FOLDER_SIZE, own))
    if name.startswith(TORCHVISION):
        return torchvision_data.read(name.removeprefix(TORCHVISION), option, images.preparation(options, None, own))
    if data_file.is_file_name(name):
        return data_file.read(name, option, needs_labels=needs_labels)
    data = user_code.find_object(name)
    if callable(data):
        data = user_code.call(data, f"{option} {name}")
    if needs_labels and isinstance(data, (Tensor, np.ndarray)):
        raise TypeError(
            f"{option} {name} is a {type(data).__name__} without labels, and this command needs one integer class for "
            "each sample: a tuple (inputs, labels), or a loader of batches (*inputs, labels)"
        )
    return data
