"""Convert quantised tensors to numbers and back, and refuse gradients of quantised layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_ablate.inputs.unchanged import modules_of


def dequantised(tensor: Tensor) -> Tensor:
    """Return the numbers that a quantised tensor stands for; any other tensor as it is."""
    return tensor.dequantize() if tensor.is_quantized else tensor


def quantised_as(old: Tensor, new: Tensor) -> Tensor:
    """Return ``new`` rounded to the numbers that ``old`` can hold, if that is a quantised tensor."""
    if not old.is_quantized:
        return new
    if old.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return torch.quantize_per_tensor(new, old.q_scale(), old.q_zero_point(), old.dtype)
    scales, zeros, axis = old.q_per_channel_scales(), old.q_per_channel_zero_points(), old.q_per_channel_axis()
    return torch.quantize_per_channel(new, scales, zeros, axis, old.dtype)


def refuse_gradients_of_quantised(forward_func: Any, method: str) -> None:
    """Raise if the model has quantised layers: they cut gradients off, on some paths in silence."""
    for module in modules_of([forward_func]):
        where = type(module).__module__
        if where.startswith("torch.ao.nn.") and ".quantized" in where:
            raise ValueError(
                f"{method} needs gradients, and the model has quantised layers ({type(module).__name__}), which pass "
                "none; take LayerUnitAblation, or the model as it was before quantisation"
            )
