"""Results on disk: a JSON file that people can read, and beside it the tensors in one npz file. No pickle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FORMAT = 1
"""Version of the layout of the two files."""

_AS_BYTES = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
"""Whole numbers of so many bytes, as which types are stored that NumPy does not have."""

_OURS = (["tensor"], ["tensor", "type"], ["mapping"])
"""Keys of the mappings that stand for something else."""


def save(folder: str | Path, name: str, tree: Mapping[str, Any]) -> Path:
    """Write ``tree`` as ``<name>.json`` and ``<name>.npz`` into ``folder`` (made if absent); return the folder.

    A tree is made of mappings with string keys, lists, plain values and tensors.
    """
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[Any]] = {}
    about = {"format": FORMAT, **_without_tensors(tree, "", arrays)}
    tensors, plain = path / f"{name}.npz", path / f"{name}.json"
    with _replacing(tensors) as beside:
        np.savez_compressed(beside, **arrays)  # type: ignore[arg-type]  # arrays by name
    with _replacing(plain) as beside:
        beside.write_text(json.dumps(about, indent=1), encoding="utf-8")
    return path


@contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    """Yield a file to write; once it is whole it takes the place of ``file``, so a kill or a full disk leaves that."""
    beside = file.with_name(f"partial-{file.name}")
    try:
        yield beside
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def load(place: str | Path, name: str) -> dict[str, Any]:
    """Return the tree that ``save`` wrote, equal to the bit, from its folder or its JSON file.

    Raises:
        FileNotFoundError: if one of the two files is missing.
        ValueError: if they are damaged, were written by something else, or by a newer version.
    """
    path = Path(place)
    file = path if path.suffix == ".json" else path / f"{name}.json"
    beside = file.with_suffix(".npz")
    for one in (file, beside):
        if not one.is_file():
            raise FileNotFoundError(
                f"{str(place)!r} holds no saved {name}: {one.name!r} is missing; save writes {name}.json and {name}.npz"
            )
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        with np.load(beside) as stored:
            arrays = {key: torch.from_numpy(stored[key]) for key in stored.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"the saved {name} in {str(file.parent)!r} is damaged: {error}") from error
    if not isinstance(about, dict) or not isinstance(about.get("format"), int):
        raise ValueError(f"{str(file)!r} is no saved {name}: it does not say its format")
    if about["format"] > FORMAT:
        raise ValueError(
            f"{str(file)!r} has format {about['format']}, and this version reads up to {FORMAT}; upgrade captum_ablate"
        )
    try:
        tree: dict[str, Any] = _with_tensors({k: v for k, v in about.items() if k != "format"}, arrays)
    except KeyError as error:
        raise ValueError(f"the saved {name} in {str(file.parent)!r} is damaged: tensor {error} is missing") from error
    return tree


def _without_tensors(value: Any, place: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """Return ``value`` for JSON; its tensors go to ``arrays``, and leave the name under which they stand there."""
    if isinstance(value, Tensor):
        plain = value.detach().cpu().resolve_conj().resolve_neg()
        try:
            arrays[place] = plain.numpy()
        except TypeError:  # NumPy has no bfloat16 and its like
            arrays[place] = plain.view(_AS_BYTES[plain.element_size()]).numpy()
            return {"tensor": place, "type": str(plain.dtype).removeprefix("torch.")}
        return {"tensor": place}
    if isinstance(value, Mapping):
        own = {key: _without_tensors(one, f"{place}.{key}".lstrip("."), arrays) for key, one in value.items()}
        return {"mapping": own} if list(own) in _OURS else own  # names like ours
    if isinstance(value, (list, tuple)):
        return [_without_tensors(one, f"{place}.{k}", arrays) for k, one in enumerate(value)]
    return value


def _with_tensors(value: Any, arrays: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if list(value) == ["tensor"]:
            return arrays[value["tensor"]]
        if list(value) == ["tensor", "type"]:
            return arrays[value["tensor"]].view(getattr(torch, value["type"]))
        if list(value) == ["mapping"]:
            value = value["mapping"]
        return {key: _with_tensors(one, arrays) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_tensors(one, arrays) for one in value]
    return value
