"""Recognise the form of data: labels, one batch of inputs or batches; say of any other form what to pass instead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from captum_ablate.inputs.batch import Batch, is_texts
from captum_ablate.inputs.values import ARRAYS, is_text


def is_target(value: Any) -> bool:
    """Tell whether the second of two things is labels, not a batch: a batch is a tuple or holds tensors."""
    if isinstance(value, (Tensor, int, *ARRAYS)) or value is None or is_text(value):
        return True
    if not isinstance(value, (list, tuple)):
        return False
    if value and all(isinstance(one, Tensor) and one.ndim == 0 for one in value):
        return True
    rows = value[0] if value and isinstance(value[0], (list, tuple)) else value
    return all(isinstance(v, (int, float, np.generic)) for v in rows)


def is_input(inputs: Any) -> bool:
    """Tell whether what comes beside a target is one batch of inputs, and not batches that bring their own."""
    if isinstance(inputs, (Batch, Dataset, DataLoader, Iterator)):
        return False
    if isinstance(inputs, (Mapping, *ARRAYS)) or is_texts(inputs):
        return True
    return isinstance(inputs, tuple) or not isinstance(inputs, Iterable)


def refuse_other_data(data: Any) -> None:
    """Raise if ``data`` is no iterable of batches."""
    if isinstance(data, tuple) and len(data) > 1 and all(isinstance(one, Tensor) for one in data):
        raise TypeError(
            f"data are a tuple of {len(data)} tensors; several inputs with labels are one tuple (inputs, target): "
            "((x1, x2), labels)"
        )
    if isinstance(data, (Tensor, Mapping, str, *ARRAYS)) or not isinstance(data, Iterable):
        hint = ""
        if isinstance(data, Mapping):
            hint = "; a dict of inputs has its labels beside it: (inputs, target)"
        elif callable(data):
            hint = "; if it makes batches, pass a list of them, list(f()), or a DataLoader"
        raise TypeError(
            "data must be a tuple (inputs, target), or an iterable of batches such as a DataLoader; "
            f"got {type(data).__name__}{hint}"
        )
