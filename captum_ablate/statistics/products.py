"""Calls of PyTorch that multiply by weights: what goes in, the weights, and which of them belong to a channel."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

LINEAR = {functional.linear: (0, 1), torch.addmm: (1, 2)} | dict.fromkeys(
    (torch.matmul, torch.mm, Tensor.matmul, Tensor.__matmul__, Tensor.mm), (0, 1)
)
"""Places of the input and of the weights in the arguments of products with a matrix."""
CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
TRANSPOSED = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)


class Product(NamedTuple):
    """A call of a linear function or a convolution with its ``weight``."""

    weight: Tensor
    kind: str
    groups: int

    @property
    def words(self) -> str:
        """Name in messages."""
        return f"{self.kind} with weights {tuple(self.weight.shape)}"

    @property
    def channel_dim(self) -> int:
        """The axis of units in what goes in and comes out."""
        return -1 if self.kind in ("linear", "product") else 1

    def columns(self) -> Tensor:
        """Return the sum of squares of the weights of each channel that goes in, float64 ``[in]``."""
        first, second = self._squares
        return second if self.kind in ("linear", "convolution") else first

    def rows(self) -> Tensor:
        """Return the sum of squares of the weights of each channel that comes out, float64 ``[out]``."""
        first, second = self._squares
        return first if self.kind in ("linear", "convolution") else second

    @property
    def _squares(self) -> tuple[Tensor, Tensor]:
        """The sums along the first axis of the weights, and along the second, group after group."""
        squares = self.weight.detach().cpu().to(torch.float64).square()
        squares = squares.flatten(2).sum(2) if squares.ndim > 2 else squares
        grouped = squares.reshape(self.groups, -1, squares.shape[1])
        return squares.sum(1), grouped.sum(1).flatten()


def hides_nan(func: Any, args: Any, kwargs: Any) -> bool:
    """Tell whether attention got NaN in its queries or keys, on which all that it returns depends, and shows none."""
    if func is not functional.scaled_dot_product_attention:
        return False
    return any(bool(_argument(args, kwargs, k, name).isnan().any()) for k, name in enumerate(("query", "key")))


def product_of(func: Any, args: Any, kwargs: Any) -> tuple[Product, Tensor] | None:
    """Return the product that a call is, and what goes into it; None for any other function."""
    if func in CONVOLUTIONS or func in TRANSPOSED:
        value, weight = (_argument(args, kwargs, k, name) for k, name in enumerate(("input", "weight")))
        groups = _argument(args, kwargs, 6, "groups", 1)
        kind = "convolution" if func in CONVOLUTIONS else "transposed convolution"
        return Product(weight, kind, groups), value
    if func not in LINEAR:
        return None
    place, of_weight = LINEAR[func]
    is_linear = func is functional.linear
    value = _argument(args, kwargs, place, "input" if func is not torch.addmm else "mat1")
    weight = _argument(args, kwargs, of_weight, {functional.linear: "weight", torch.addmm: "mat2"}.get(func, "other"))
    if weight is None or weight.ndim != 2 or not (is_linear or isinstance(weight, nn.Parameter)):
        return None
    return Product(weight, "linear" if is_linear else "product", 1), value


def _argument(args: Any, kwargs: Any, place: int, name: str, default: Any = None) -> Any:
    return args[place] if place < len(args) else kwargs.get(name, default)
