"""Loss of the network when a unit alone is ablated: measured, not estimated."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_ablate.ablation import Measured, Plan
from captum_ablate.attr.measured import MeasuredAttribution


class LayerUnitAblation(MeasuredAttribution):
    r"""Deficit if the unit alone is ablated: the mean over samples of :math:`v_i - v_{i \setminus u}`.

    ``per_class`` returns the mean over the samples of each class, ``[classes, units]``. Captum's
    ``LayerFeatureAblation`` with a mask of channels measures the same for ``metric="logit"``, at one full forward pass
    per unit.

    Args:
        reference: what replaces the unit: "zero", "mean", "resample", a Tensor, or ``f(activation, target)``. "mean"
            and "resample" learn from the same data, in a pass of their own.
        metric: :math:`v_i`, higher is better: "log_likelihood" (in nats; it moves where accuracy does not), "accuracy",
            "logit", "margin", or ``f(outputs, target) -> [n]``, which takes any target ``[n, ...]``.

    Raises:
        ValueError: if the reference or the metric is unknown, or the data can be iterated only once.

    Example:
        >>> import torch
        >>> from captum_ablate import LayerUnitAblation
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 2, bias=False)).eval()
        >>> model[1].weight.data = torch.eye(2)
        >>> x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, 3.0]])
        >>> LayerUnitAblation(model, "0", metric="logit").attribute(x, target=[0, 0, 1, 1]).tolist()
        [1.5, 1.0]
    """

    def plan(self, units: int) -> Plan:
        return Plan.singles(units)

    def losses(self, plan: Plan, measured: Measured) -> Tensor:
        return (measured.intact - measured.values).to(torch.float64)
