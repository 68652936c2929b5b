"""Read data from a file: arrays in ``.npz``, tensors in ``.pt``. Explain how to read anything else."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_ablate.inputs.targets import as_target

INPUTS = ("inputs", "images", "data", "x", "X")
LABELS = ("labels", "target", "targets", "y", "Y")
"""Names under which a file may hold its inputs and its labels; the first one present counts."""

_AS_NAMES = f"{INPUTS[0]}=..., {LABELS[0]}=..."

SUFFIXES = (".npz", ".pt", ".pth")


def is_file_name(name: str) -> bool:
    """Tell whether ``name`` means a data file or a folder, and not ``module:name``."""
    return bool(name) and (Path(name).suffix in SUFFIXES or Path(name).exists())


def read(name: str, option: str, *, needs_labels: bool = False) -> Any:
    """Return ``(inputs, labels)`` of the file ``name``, or its inputs alone if it has no labels.

    ``needs_labels`` refuses a file without labels, or whose labels are no integer classes.

    Raises:
        OSError, ValueError, TypeError: if it cannot be read or holds something else. The text names ``option``.
    """
    file = Path(name)
    if file.is_dir():
        raise ValueError(
            f"{option} {name} is a folder; a folder of images with a subfolder for each class is named {option} "
            f"imagefolder:{name} (--size, --mean, --std and --transform prepare them as your model expects); for "
            f"anything else, name a function that loads it: {option} my_code:load"
        )
    if not file.exists():
        raise FileNotFoundError(f"there is no file {name} ({option})")
    if file.suffix not in SUFFIXES:
        raise ValueError(
            f"{option} {name} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}: numpy.savez('data.npz', "
            f"{_AS_NAMES}) writes such a file; for anything else, name a function that loads it: {option} my_code:load"
        )
    if not file.stat().st_size:
        raise ValueError(f"{option} {name} is an empty file")
    found = _arrays(file, option) if file.suffix == ".npz" else _tensors(file, option)
    if isinstance(found, dict):
        found = _named(found, file, option)
    inputs, labels = found if isinstance(found, (tuple, list)) and len(found) == 2 else (found, None)
    if not isinstance(inputs, Tensor) or not (labels is None or isinstance(labels, Tensor)):
        raise TypeError(
            f"{option} {name} must hold inputs, or inputs and labels, as tensors: {_how_to_save(file)}; it holds "
            f"{_kind(found)}"
        )
    _check(inputs, labels, file, option, needs_labels)
    return _single(inputs) if labels is None else (_single(inputs), labels)


def _check(inputs: Tensor, labels: Tensor | None, file: Path, option: str, needs_labels: bool) -> None:
    """Raise if inputs and labels are not of the same samples, or labels that are needed are no classes."""
    if not inputs.ndim:
        raise ValueError(f"{option} {file} must hold inputs [n, ...], a row for each sample; they are a single number")
    if labels is not None and (not labels.ndim or len(labels) != len(inputs)):
        raise ValueError(
            f"{option} {file} must hold one label for each of its {len(inputs):,} inputs; its labels have shape "
            f"{tuple(labels.shape)}"
        )
    if not needs_labels:
        return
    if labels is None:
        raise ValueError(
            f"{option} {file} holds inputs {tuple(inputs.shape)} but no labels, and this command needs one integer "
            f"class for each sample: {_how_to_save(file)}"
        )
    as_target(labels, f" ({option} {file})")


def _how_to_save(file: Path) -> str:
    if file.suffix == ".npz":
        return f"numpy.savez({str(file)!r}, {_AS_NAMES})"
    return f"torch.save((inputs, labels), {str(file)!r}), or a dict with the keys {INPUTS[0]!r} and {LABELS[0]!r}"


def _arrays(file: Path, option: str) -> dict[str, Tensor]:
    found = {}
    try:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no zip file of arrays")
        with np.load(file) as stored:
            for name in stored.files:
                found[name] = _of_numbers(stored, name)
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{option} {file} is no .npz file of plain arrays: {error}; numpy.savez({str(file)!r}, {_AS_NAMES}) writes "
            "one"
        ) from error
    return found


def _of_numbers(stored: Any, name: str) -> Tensor:
    try:
        values = stored[name]
    except ValueError as error:  # numpy says that pickles are not allowed
        raise ValueError(f"its array {name!r} holds Python objects, not numbers") from error
    if values.dtype.kind not in "biufc":
        raise ValueError(f"its array {name!r} holds {values.dtype}, not numbers (encode classes as 0, 1, 2, ...)")
    return torch.from_numpy(values)


def _tensors(file: Path, option: str) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # bytes that are no pickle raise errors of any type
        raise ValueError(
            f"{option} {file} cannot be read with torch.load(..., weights_only=True): it must hold tensors alone, as "
            f"{_how_to_save(file)} writes them; for anything else, name a function that loads it: {option} my_code:load"
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
