"""Labelled images that are files or a data set: opened, prepared as the model expects, and held in memory."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from captum_ablate.commands import user_code
from captum_ablate.commands.model_source import import_torchvision
from captum_ablate.inputs.wording import counted

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

LARGEST = 2**31
"""Bytes of prepared images that are kept in memory; more are read again in each pass."""

MOST = 3
"""Unreadable images that an error names."""


@dataclass(frozen=True)
class Preparation:
    """How an image becomes a tensor ``[channels, height, width]``, and what happens to those that cannot be read."""

    prepare: Callable[[Any], Tensor]
    words: str
    skip_bad: bool = False


@dataclass(frozen=True)
class Images(Dataset[tuple[Tensor, int]]):
    """Images with their classes ``targets [n]``; ``open_one(k)`` opens the image k, and ``names`` are for errors."""

    names: Sequence[str]
    targets: Sequence[int]
    open_one: Callable[[int], Any]
    preparation: Preparation

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, k: int) -> tuple[Tensor, int]:
        return self.preparation.prepare(self.open_one(k)), self.targets[k]

    def take(self, samples: Sequence[int]) -> Images:
        """Return these images, by number."""
        names, targets = [self.names[k] for k in samples], [self.targets[k] for k in samples]
        return Images(names, targets, lambda k: self.open_one(samples[k]), self.preparation)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--size``, ``--mean``, ``--std``, ``--transform`` and ``--skip-bad``."""
    group = parser.add_argument_group("images (of imagefolder: and torchvision: data)")
    group.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="side of the square that is cut from the middle, of images resized to 8/7 of it (as 224 from 256); images "
        "of this size stay. Without it: 224 for a folder, the stored size for a data set",
    )
    group.add_argument("--mean", type=_numbers, metavar="R,G,B", help="subtracted; without it ImageNet's")
    group.add_argument("--std", type=_numbers, metavar="R,G,B", help="divided by; without it ImageNet's")
    group.add_argument("--transform", metavar="MODULE:NAME", help="in their place: your function of a PIL image")
    group.add_argument("--skip-bad", action="store_true", help="leave out images that cannot be read, and count them")


def preparation(options: argparse.Namespace, default_size: int | None, own: Any = None) -> Preparation:
    """Return what the options of ``add_arguments`` say; ``own`` prepares images if they say nothing.

    Raises:
        ValueError, ImportError: if an option is out of range, or ``--transform`` cannot be found.
    """
    given = [name for name in ("size", "mean", "std") if getattr(options, name) is not None]
    if options.transform is not None:
        if given:
            raise ValueError(f"--transform replaces --{given[0]}; pass one of them")
        return Preparation(_of_user(options.transform), f"prepared by {options.transform}", options.skip_bad)
    if own is not None and not given:
        return Preparation(own, "prepared as the model's weights want it", options.skip_bad)
    size = default_size if options.size is None else options.size
    if size is not None and size < 1:
        raise ValueError(f"--size must be at least 1; got {size}")
    mean, std = options.mean or IMAGENET_MEAN, options.std or IMAGENET_STD
    if min(std) <= 0:
        raise ValueError(f"--std must be positive; got {','.join(map(str, std))}")
    shown = "ImageNet's" if (mean, std) == (IMAGENET_MEAN, IMAGENET_STD) else "the given"
    words = f"{'their own size' if size is None else f'{size} x {size}'}, normalised by {shown} mean and std"
    return Preparation(_standard(size, mean, std), words, options.skip_bad)


def in_memory(images: Images, show_progress: bool) -> Any:
    """Return ``(inputs [n, ...], labels [n])`` of all images; too many for memory, a loader of them, each checked.

    Raises:
        ValueError: if images cannot be read (all are named at once, or left out by ``--skip-bad``), or differ in size.
    """
    found: list[Tensor] = []
    bad: dict[int, str] = {}
    good: list[int] = []
    size, total = None, 0
    for k in tqdm(range(len(images)), desc="reading images", unit="image", disable=not show_progress):
        try:
            image = images.open_one(k)
        except Exception as error:  # decoders raise errors of many types
            bad[k] = f"{images.names[k]} ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
            continue
        tensor = images.preparation.prepare(image)
        size = tensor.shape if size is None else size
        if tensor.shape != size:
            raise ValueError(
                f"images differ in size: {images.names[good[0]]} is {tuple(size)} and {images.names[k]} "
                f"{tuple(tensor.shape)}; pass --size to cut all to one"
            )
        good.append(k)
        total += tensor.numel() * tensor.element_size()
        if total <= LARGEST:
            found.append(tensor)
    _report(list(bad.values()), images, good)
    kept = images.take(good)
    if total > LARGEST:
        return DataLoader(kept, batch_size=64)
    return torch.stack(found), torch.tensor(kept.targets)


def _report(bad: Sequence[str], images: Images, good: Sequence[int]) -> None:
    """Raise if images are bad and may not be skipped; else print how many are."""
    named = ", ".join(bad[:MOST]) + (f" and {len(bad) - MOST} more" if len(bad) > MOST else "")
    if bad and not images.preparation.skip_bad:
        raise ValueError(
            f"{len(bad)} of {counted(len(images), 'image')} cannot be read: {named}; --skip-bad leaves them out"
        )
    if bad:
        print(f"left out {len(bad)} of {counted(len(images), 'image')} that cannot be read: {named}")
    if not good:
        raise ValueError("no image is left")


def _standard(size: int | None, mean: Sequence[float], std: Sequence[float]) -> Callable[[Any], Tensor]:
    transforms = import_torchvision("preparing images").transforms
    to_tensor = transforms.ToTensor()
    cut = (
        None
        if size is None
        else transforms.Compose([transforms.Resize(round(size * 8 / 7)), transforms.CenterCrop(size)])
    )

    def prepare(image: Any) -> Tensor:
        if cut is not None and image.size != (size, size):
            image = cut(image)
        tensor: Tensor = to_tensor(image)
        for values, option in ((mean, "--mean"), (std, "--std")):
            if len(values) not in (1, len(tensor)):
                raise ValueError(
                    f"{option} has {counted(len(values), 'number')}, and the images have "
                    f"{counted(len(tensor), 'channel')}: pass one number for each"
                )
        return (tensor - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]

    return prepare


def _of_user(name: str) -> Callable[[Any], Tensor]:
    function = user_code.find_object(name)

    def prepare(image: Any) -> Tensor:
        try:
            found = function(image)
        except Exception as error:
            raise ValueError(f"--transform {name} failed with {user_code.described(error)}") from error
        if not isinstance(found, Tensor):
            raise TypeError(f"--transform {name} must return a Tensor [channels, ...]; got {type(found).__name__}")
        return found

    return prepare


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(one) for one in text.split(","))
