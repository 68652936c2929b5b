"""Weights in a file of the user's: read them, and load them into a model that they fit, or say where they do not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate.inputs.wording import counted

NESTED = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the weights in a checkpoint."""

MOST = 3
"""Names of weights that an error lists."""

Weights = Mapping[str, Tensor]


def read(name: str | Path) -> Weights:
    """Return the weights of a file by name; those of a checkpoint, and of a model in ``DataParallel``, too.

    Raises:
        OSError, ValueError: if there is no such file, or it holds something else.
    """
    file = Path(name).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"there is no file of weights {name}")
    try:
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # bytes that are no pickle raise errors of any type
        raise ValueError(
            f"{name} cannot be read with torch.load(..., weights_only=True): it must hold weights alone, as "
            "torch.save(model.state_dict(), file) writes them"
        ) from error
    for key in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not found or not all(isinstance(one, Tensor) for one in found.values()):
        raise ValueError(
            f"{name} holds {type(found).__name__}, and must hold weights by name, as "
            "torch.save(model.state_dict(), file) writes them"
        )
    return {str(key).removeprefix("module."): value for key, value in found.items()}


def load(model: nn.Module, weights: Weights, what: str) -> None:
    """Load ``weights`` into ``model``; ``what`` names both for the error.

    Raises:
        ValueError: if a weight is missing, left over or of another shape; the text names the first ones.
    """
    own = model.state_dict()
    differing = [
        f"{name} is {tuple(weights[name].shape)} in the file and {tuple(own[name].shape)} in the model"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    optional = {name for name in own if name.endswith("num_batches_tracked")}  # absent in old files
    missing = [name for name in own if name not in weights and name not in optional]
    extra = [name for name in weights if name not in own]
    faults = [_first("missing in the file", missing), _first("unknown to the model", extra), _some(differing)]
    if any(faults):
        raise ValueError(f"the weights do not fit {what}: {'; '.join(fault for fault in faults if fault)}")
    model.load_state_dict({name: weights[name] for name in own if name in weights}, strict=False)


def classes_of(weights: Weights) -> int | None:
    """Return the number of classes of a classifier: the rows of its last matrix or kernel; None if it has none."""
    heads = [value for value in weights.values() if value.ndim >= 2]
    return len(heads[-1]) if heads else None


def _first(what: str, names: list[str]) -> str:
    return f"{counted(len(names), 'weight')} {what}, {_some(names)}" if names else ""


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - MOST} more" if len(texts) > MOST else ""
    return ", ".join(texts[:MOST]) + more
