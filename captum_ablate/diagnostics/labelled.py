"""Check what the diagnostics of logits take: one row of finite numbers and one label for each sample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_ablate.inputs.targets import as_target
from captum_ablate.inputs.values import as_real


def logits_and_target(logits: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Return ``logits [n, classes]`` float64 and ``target [n]`` int64 on the CPU; every label names a column."""
    logits, target = rows(logits, "logits", "[n, classes]"), labels(target, "target")
    same_length(target=target, logits=logits)
    if logits.shape[1] < 2:
        raise ValueError(
            f"logits must have a column for each of two or more classes; got shape {tuple(logits.shape)}. "
            "For a single-output binary head with logit z, pass torch.stack([-z / 2, z / 2], 1)"
        )
    if int(target.min()) < 0 or int(target.max()) >= logits.shape[1]:
        raise ValueError(
            f"the labels must lie in 0..{logits.shape[1] - 1}, the columns of the logits; "
            f"got {int(target.min())}..{int(target.max())}"
        )
    return logits, target


def rows(values: Any, name: str, shape: str) -> Tensor:
    """Return finite ``values`` as a float64 matrix on the CPU, one row for each sample."""
    matrix = as_real(values, name)
    if matrix.ndim != 2 or not len(matrix):
        raise ValueError(f"{name} must be {shape} with at least one sample; got shape {tuple(matrix.shape)}")
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError(f"{name} hold NaN or infinite numbers; check the inputs and the weights of the model")
    return matrix


def labels(values: Any, name: str) -> Tensor:
    """Return integer labels ``[n]``, n >= 1, as int64 on the CPU."""
    found = as_target(values, where=f" ({name})" if name != "target" else "").cpu()
    if not len(found):
        raise ValueError(f"{name} is empty; at least one sample is needed")
    return found


def same_length(**parts: Tensor) -> None:
    """Raise if the named tensors do not all have the same number of samples."""
    if len({len(part) for part in parts.values()}) > 1:
        sizes = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
        raise ValueError(f"all need one entry for each sample, in the same order; got lengths: {sizes}")
