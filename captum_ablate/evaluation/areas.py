"""Curves from what was measured, and their areas: what each sample loses on average as units are ablated."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_ablate.ablation import Measured, Plan


def curves_of(plan: Plan, measured: Measured) -> list[Tensor]:
    """Return the metric along each chain of the plan, intact first, float64 ``[steps+1, n]``."""
    intact = measured.intact.to(torch.float64)
    return [torch.cat([intact[None], measured.values[list(row)].to(torch.float64)]) for row in plan.rows]


def deficit_areas(values: Tensor, fraction: Tensor) -> Tensor:
    """Return D_i, the area between the intact metric and the curve of each sample, ``[n]``.

    D_i = v_i0 - sum_k (f_(k+1) - f_k) (v_ik + v_i(k+1)) / 2, for ``values [steps+1, n]`` at ``fraction [steps+1]``.

    >>> import torch
    >>> from captum_ablate.evaluation.areas import deficit_areas
    >>> deficit_areas(torch.tensor([[1.0], [0.0], [0.0]]), torch.tensor([0.0, 0.5, 1.0]))
    tensor([0.7500])
    """
    widths = (fraction[1:] - fraction[:-1])[:, None]
    return values[0] - (widths * (values[1:] + values[:-1]) / 2).sum(dim=0)
