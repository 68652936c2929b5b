"""Convert numbers in any container to tensors, real numbers or ints, and refuse what is no number."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

PANDAS = (pd.DataFrame, pd.Series, pd.Index, pd.api.extensions.ExtensionArray)
ARRAYS = (np.ndarray, *PANDAS)
"""Containers of numbers beside tensors and lists."""


def tensor_of(values: Any, name: str = "values") -> Tensor:
    """Return ``values`` as a tensor; the rows of pandas objects go by place, whatever their index.

    NumPy arrays of any strides and byte order share memory if they can.

    Raises:
        TypeError: if they are not numbers, such as strings or lists of unequal length.
    """
    if isinstance(values, Tensor):
        return values.detach()
    try:
        if isinstance(values, (list, tuple)) and any(isinstance(one, Tensor) for one in values):
            return torch.stack([torch.as_tensor(one).detach() for one in values])
        array = np.asarray(values)
        if array.dtype == object:
            array = np.array(array.tolist())  # numbers in a column of mixed type
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("="))
        if any(stride < 0 for stride in array.strides) or not array.flags.writeable:
            array = array.copy()
        return torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name} must be numbers, in a tensor, a NumPy array, a pandas object or a list; got {_kind(values)}"
        ) from error


def as_real(values: Any, name: str) -> Tensor:
    """Return ``values``, in any container, as float64 on the CPU.

    Raises:
        TypeError: if they are not numbers.
        ValueError: if they are complex.
    """
    tensor = tensor_of(values, name).cpu()
    refuse_complex(tensor, name)
    return tensor.to(torch.float64)


def refuse_complex(values: Tensor, name: str) -> None:
    """Raise if ``values``, called ``name`` in the message, are complex."""
    if values.is_complex():
        raise ValueError(
            f"{name} must be real; got {values.dtype}, which has neither an order nor a sign: pass .abs(), or real "
            "and imaginary part as numbers of their own (torch.view_as_real)"
        )


def whole_number(value: Any, name: str, least: int, wanted: str = "") -> int:
    """Return ``value`` as an int of at least ``least``, from any type of whole numbers, such as ``np.int64``.

    ``wanted`` is what the message says that it must be.

    Raises:
        ValueError: if it is no whole number, or smaller.
    """
    number = int_or_none(value)
    if number is None or number < least:
        raise ValueError(f"{name} must be {wanted or f'an int of at least {least}'}; got {value!r}")
    return number


def int_or_none(value: Any) -> int | None:
    """Return ``value`` as an int if its type is one of whole numbers, else None; truth values are none."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, Tensor) and value.dtype == torch.bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def is_text(values: Any) -> bool:
    """Tell whether ``values`` are strings, in any container."""
    if isinstance(values, ARRAYS):
        flat = np.asarray(values, dtype=object).ravel()[:1]
        return len(flat) > 0 and isinstance(flat[0], str)
    return isinstance(values, (list, tuple)) and len(values) > 0 and all(isinstance(one, str) for one in values)


def _kind(values: Any) -> str:
    if isinstance(values, ARRAYS):
        text = next((repr(one) for one in np.asarray(values, dtype=object).ravel() if isinstance(one, str)), "")
        return f"{type(values).__name__}{f' with {text}' if text else ''}"
    if isinstance(values, (list, tuple)):
        return f"{type(values).__name__} of {', '.join(dict.fromkeys(type(one).__name__ for one in values))}"
    return type(values).__name__
