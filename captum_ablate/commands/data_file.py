"""Read data from a file: arrays in ``.npz``, tensors in ``.pt``. Explain how to read anything else."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

INPUTS = ("inputs", "images", "data", "x", "X")
LABELS = ("labels", "target", "targets", "y", "Y")
"""Names under which a file may hold its inputs and its labels; the first one present counts."""

SUFFIXES = (".npz", ".pt", ".pth")


def is_file_name(name: str) -> bool:
    """Tell whether ``name`` means a data file or a folder, and not ``module:name``."""
    return Path(name).suffix in SUFFIXES or Path(name).is_dir()


def read(name: str, option: str) -> Any:
    """Return ``(inputs, labels)`` of the file ``name``, or its inputs alone if it has no labels.

    Raises:
        FileNotFoundError, ValueError, TypeError: if it cannot be read or holds something else. The text names
            ``option``.
    """
    file = Path(name)
    if file.is_dir():
        raise ValueError(
            f"{option} {name} is a folder. Only your model determines how its images are sized and normalised, so "
            "name a function that reads them, for instance in my_code.py:\n\n"
            "    def load():\n"
            "        from torch.utils.data import DataLoader\n"
            "        from torchvision import datasets, transforms\n\n"
            "        prepare = transforms.Compose([transforms.Resize((224, 224)), transforms.ToTensor()])\n"
            f"        return DataLoader(datasets.ImageFolder({str(name)!r}, prepare), batch_size=64)\n\n"
            f"and pass {option} my_code:load (ImageFolder takes each subfolder for a class)"
        )
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {name} ({option})")
    found = _arrays(file, option) if file.suffix == ".npz" else _tensors(file, option)
    if isinstance(found, dict):
        found = _named(found, file, option)
    if isinstance(found, Tensor):
        return _single(found)
    if isinstance(found, (tuple, list)) and len(found) == 2 and all(isinstance(part, Tensor) for part in found):
        return _single(found[0]), found[1]
    raise TypeError(
        f"{option} {name} must hold inputs, or inputs and labels, as tensors: torch.save((inputs, labels), {name!r}) "
        f"or a dict with the keys {INPUTS[0]!r} and {LABELS[0]!r}; it holds {_kind(found)}"
    )


def _arrays(file: Path, option: str) -> dict[str, Tensor]:
    try:
        with np.load(file) as stored:
            return {name: torch.from_numpy(stored[name]) for name in stored.files}
    except (ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{option} {file} is no .npz file of plain arrays: {error}") from error


def _tensors(file: Path, option: str) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle raise errors of any type
        raise ValueError(
            f"{option} {file} cannot be read with torch.load(..., weights_only=True): it must hold tensors alone, as "
            "torch.save((inputs, labels), file) writes them. For anything else, name a function that loads it: "
            f"{option} my_code:load"
        ) from error


def _named(found: dict[Any, Any], file: Path, option: str) -> Any:
    """Return the inputs, and the labels if there are any, from named arrays."""
    inputs = next((found[name] for name in INPUTS if name in found), None)
    labels = next((found[name] for name in LABELS if name in found), None)
    if inputs is None:
        raise ValueError(
            f"{option} {file} must hold its inputs under one of the names {', '.join(INPUTS)} (and labels under one "
            f"of {', '.join(LABELS)}); it has {', '.join(map(str, list(found)[:12])) or 'nothing'}"
        )
    return inputs if labels is None else (inputs, labels)


def _single(inputs: Tensor) -> Tensor:
    """Return float64 inputs, numpy's default, in torch's default precision."""
    return inputs.to(torch.get_default_dtype()) if inputs.dtype == torch.float64 else inputs


def _kind(found: Any) -> str:
    if isinstance(found, (tuple, list)):
        return f"a {type(found).__name__} of {', '.join(type(part).__name__ for part in found[:5]) or 'nothing'}"
    return type(found).__name__
