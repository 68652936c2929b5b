"""The ordinary tensors that a tensor of any layout stands for: sparse, nested or MKL-DNN's."""

from __future__ import annotations

import torch
from torch import Tensor


def dense_parts(tensor: Tensor) -> list[Tensor]:
    """Return strided tensors with the values of ``tensor``: one, or of a nested one each of its parts.

    >>> import torch
    >>> from captum_ablate.inputs.layouts import dense_parts
    >>> dense_parts(torch.eye(2).to_sparse())
    [tensor([[1., 0.],
            [0., 1.]])]
    """
    if tensor.is_nested:
        return list(tensor.unbind())
    return [tensor if tensor.layout == torch.strided else tensor.to_dense()]
