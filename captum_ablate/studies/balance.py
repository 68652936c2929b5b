"""Bias balancing: remove units for good, and let the next layer's bias make up for their mean."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from captum_ablate.inputs.model import Layer, find_layer, layer_name


def bias_balanced(model: nn.Module, next_layer: Layer, units: Tensor | Sequence[int], means: Tensor) -> nn.Module:
    r"""Return a copy of ``model`` in which ``units`` of the layer that ``next_layer`` reads are cut out and balanced.

    .. math:: b \leftarrow b + \sum_{u \in S} W_{:,u}\, m_u, \qquad W_{:,u} \leftarrow 0

    The copy computes what the model computes under ablation with the mean as reference. "Bias balancing" is named in
    the first version of Amjad, Liu and Geiger (arXiv 1804.06679 v1); the formula is our reading.

    Args:
        model: stays as it is.
        next_layer: the ``Linear`` or convolution that reads the units directly (or flattened).
        units: indices of the units to cut out.
        means: mean activation m of every unit, ``[units]``, such as the scores of ``LayerMeanActivity``. Zeros cut
            units out and leave the bias.

    Raises:
        TypeError: if ``next_layer`` is neither ``Linear`` nor a convolution.
        ValueError: if no bias can make up for the units (groups, zero padding, a computed weight), or numbers do not
            fit.

    Example:
        >>> import torch
        >>> from captum_ablate.studies import bias_balanced
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)).eval()
        >>> smaller = bias_balanced(model, "2", [0, 3], torch.zeros(6))
        >>> smaller[2].weight[:, [0, 3]].abs().max().item()
        0.0
    """
    module = find_layer(model, next_layer)
    name = layer_name(model, module)
    _check_balanceable(module, name, means)
    copy = deepcopy(model)
    edited: Any = find_layer(copy, name)
    weight = edited._parameters.get("weight")
    if weight is None:
        raise ValueError(
            f"the weight of {name!r} is computed from other parameters, so units cannot be cut out of it; remove its "
            "parametrisation first (torch.nn.utils.parametrize.remove_parametrizations)"
        )
    inputs = weight.shape[1]
    count = len(means)
    if count < 1 or inputs % count or (isinstance(module, _ConvNd) and count != inputs):
        raise ValueError(
            f"means must have one value for each unit that {name!r} reads ({inputs} inputs, a whole number for each "
            f"unit); got {count}"
        )
    index = torch.as_tensor(units, dtype=torch.int64).flatten().unique()
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < count:
        raise ValueError(f"units must be indices from 0 to {count - 1}; got {int(index.min())} to {int(index.max())}")
    with torch.no_grad():
        wide = weight.reshape(len(weight), count, -1).clone()  # [outputs, units, positions]
        shift = wide[:, index].sum(dim=2) @ means.to(wide)[index]
        edited.bias = nn.Parameter(shift if edited.bias is None else edited.bias + shift)
        wide[:, index] = 0
        weight.copy_(wide.reshape(weight.shape))
    return copy


def _check_balanceable(module: nn.Module, name: str, means: Tensor) -> None:
    """Raise if no bias of ``module`` can make up for units at their means."""
    if not isinstance(module, (nn.Linear, _ConvNd)) or getattr(module, "transposed", False):
        raise TypeError(
            f"next_layer must be a Linear or a convolution, which a bias can balance; {name!r} is a "
            f"{type(module).__name__}"
        )
    if isinstance(module, _ConvNd):
        if module.groups != 1:
            raise ValueError(f"a convolution with groups cannot be balanced; {name!r} has {module.groups}")
        padded = any(module.padding) if not isinstance(module.padding, str) else module.padding == "same"
        if bool(torch.any(means != 0)) and padded and module.padding_mode == "zeros":
            raise ValueError(
                f"{name!r} pads with zeros, so a unit's mean reaches its border less than its middle and no bias can "
                "make up for it; use the evaluator with reference='mean', which is exact"
            )
