"""The real data of the replications, in disjoint parts for training, ranking and evaluation."""

from __future__ import annotations

import io
import os
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_ablate import demo_data
from captum_ablate.inputs.samples import Labelled, Split

__all__ = ["ImageNet", "Labelled", "Split", "first", "image_net", "images", "joined", "movie_reviews"]


@cache
def images(name: str) -> Split:
    """Return ``mnist`` or ``fashion`` (8,000 / 1,000 / 1,000 images) or ``cifar10`` (20,000 / 5,000 / 5,000).

    Pixels are standardised. The parts are disjoint and stratified; the last two are the halves of the test images.
    """
    return demo_data.load(name, held_out=10_000)


def first(data: Labelled, n: int) -> Labelled:
    """Return the first ``n`` samples of ``data``, which is in a seeded random order."""
    return Labelled(data.images[:n], data.labels[:n])


def joined(*parts: Labelled) -> Labelled:
    """Return the samples of all ``parts``, one after another."""
    return Labelled(torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts]))


def movie_reviews() -> pd.DataFrame:
    """Return Pang and Lee's sentences (2005): ``text`` (tokens split by blanks), ``label`` (1 positive), ``split``."""
    return pd.read_csv(_file("rt_polarity.csv"))


class ImageNet(NamedTuple):
    """One image per class: ``images [1000, 3, 224, 224]`` uint8, ``labels [1000]`` 0..999, names and WordNet ids."""

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    wnids: tuple[str, ...]


def image_net() -> ImageNet:
    """Return the thousand ImageNet images; they are likely training images, so their accuracy says little."""
    from PIL import Image  # imported late: only these data need it

    with np.load(_file("imagenet1000.npz")) as stored:
        data, offsets = stored["jpeg"].tobytes(), stored["offsets"]
        decoded = np.stack([np.asarray(Image.open(io.BytesIO(data[a:b]))) for a, b in pairwise(offsets)])
        return ImageNet(
            torch.from_numpy(decoded).permute(0, 3, 1, 2),
            torch.from_numpy(stored["labels"].astype(np.int64)),
            tuple(map(str, stored["names"])),
            tuple(map(str, stored["wnids"])),
        )


def _file(name: str) -> Path:
    folder = os.environ.get(demo_data.DATA_FOLDER)
    if not folder or not (Path(folder) / name).is_file():
        raise FileNotFoundError(
            f"this replication needs the file {name}; set the environment variable {demo_data.DATA_FOLDER} to the "
            f"folder that contains it (it is {folder or 'not set'})"
        )
    return Path(folder) / name
