"""Check what a score or a metric is held against: one integer class per sample, or anything with a row per sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_ablate.inputs.values import int_or_none, is_text, tensor_of


def as_target(target: Any, where: str = "") -> Tensor:
    """Return the class of each sample as int64 ``[n]``.

    Integers of any type are taken, also ``[n, 1]``, a list, NumPy or pandas (by place, whatever its index).

    Raises:
        ValueError: if the labels are missing, a single number, not whole, or more than one a sample.
        TypeError: if they are no numbers, such as strings.
    """
    if isinstance(target, Tensor) and target.ndim == 1 and target.dtype == torch.int64:
        return target.detach()
    labels = _rows(target, where, "must hold the class of each sample, [n]")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape == (0,):
        return labels.to(torch.int64)
    if labels.is_floating_point() and labels.ndim == 1 and bool(((labels == 0) | (labels == 1)).all()):
        raise ValueError(
            f"target{where} must hold one integer class per sample, [n]; got {labels.dtype} {tuple(labels.shape)}, all "
            "0 or 1: pass target.long()"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.ndim != 1:
        raise ValueError(
            f"target{where} must hold one integer class per sample, [n]; got {labels.dtype} {tuple(labels.shape)}. "
            "Soft labels, multi-label targets and regression have no classes: choose one class per sample (such as "
            "target.argmax(1) or target.long()), or ablate with metric=f, which takes any target"
        )
    return labels.to(torch.int64)


def any_target(target: Any, where: str = "") -> Tensor:
    """Return what a metric of the user's own is held against: ``[n, ...]`` of any type.

    Whole numbers ``[n]`` become int64, as classes; all else keeps its type and its shape.
    """
    rows = _rows(target, where, "must hold a row for each sample, [n, ...]")
    if isinstance(target, (list, tuple)) and rows.dtype == torch.float64:
        rows = rows.to(torch.get_default_dtype())
    whole = rows.ndim == 1 and not rows.is_floating_point() and not rows.is_complex()
    return rows.to(torch.int64) if whole or rows.shape == (0,) else rows


def classes_of(target: Tensor) -> Tensor | None:
    """Return the classes ``[n]`` of a checked target, also of whole numbers ``[n, 1]``; None if it has none."""
    if target.ndim == 2 and target.shape[1] == 1 and not target.is_floating_point() and not target.is_complex():
        return target[:, 0].to(torch.int64)
    return target if are_classes(target) else None


def are_classes(target: Tensor) -> bool:
    """Tell whether a checked target is one class per sample, int64 ``[n]``."""
    return target.ndim == 1 and target.dtype == torch.int64


def classes_or_zeros(target: Tensor) -> Tensor:
    """Return the classes ``[n]`` of a checked target; where it has none, all samples are of class 0."""
    classes = classes_of(target)
    return torch.zeros(len(target), dtype=torch.int64, device=target.device) if classes is None else classes


def check_classes(classes: Tensor) -> None:
    """Raise if fewer than two classes are present."""
    if len(classes) < 2:
        raise ValueError(
            f"the data hold one class only (label {int(classes[0])}); a score over labelled data needs two or more"
        )


def _rows(target: Any, where: str, wanted: str) -> Tensor:
    if target is None:
        raise ValueError(f"the labels{where} are missing: one integer class per sample is needed, [n]")
    if int_or_none(target) is not None and np.ndim(target) == 0:
        raise ValueError(
            f"target{where} {wanted}; got the single number {int(target)}. "
            "One output index for all samples is what Captum's per-sample methods take, not a labelled data set."
        )
    if is_text(target):
        first = np.asarray(target, dtype=object).ravel()[0]
        raise TypeError(
            f"target{where} must be integers [n], and holds strings such as {first!r}; encode them: "
            "names, target = numpy.unique(labels, return_inverse=True)"
        )
    if isinstance(target, (set, frozenset, dict)):
        raise TypeError(f"target{where} must be integers [n]: a tensor, array or list; got {type(target).__name__}")
    try:
        rows = tensor_of(target)
    except TypeError as error:
        raise TypeError(
            f"target{where} must be integers [n]: a tensor, NumPy array, pandas Series or list; "
            f"got {type(target).__name__}"
        ) from error
    if rows.ndim == 0:
        raise ValueError(f"target{where} {wanted}; got the single number {rows.item()}")
    return rows
