"""The Shapley value of each unit: its mean loss over all orders of ablation, by random permutations."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_ablate.ablation import Measured, Plan
from captum_ablate.ablation.metrics import Metric
from captum_ablate.attr.measured import MeasuredAttribution
from captum_ablate.inputs.values import whole_number


class LayerShapleyValue(MeasuredAttribution):
    r"""Shapley value of the metric: :math:`\phi_u`, the mean over orders of what u takes when its turn comes.

    Monte-Carlo over ``permutations`` random orders, each with its reverse (antithetic, ours), after Neuron Shapley
    (Ghorbani and Zou 2020, arXiv 2002.09815). Values add up to the metric of the intact network minus that with every
    unit ablated, exactly for each permutation. Where units interact at most in pairs, an order and its reverse together
    give the exact value, and the gap of any order is :math:`\sum_u \phi_u (1 - (2 pos_u + 1) / U)` (one unit a step).
    So the gap rewards orders that sort by Shapley value, and agreement with it is partly by construction.

    ``per_class`` returns the mean over the samples of each class, ``[classes, units]``.

    Args:
        reference: what replaces the units: "zero", "mean", "resample", a Tensor, or ``f(activation, target)``.
        metric: "accuracy" (fraction of 1), "log_likelihood" (nats), "logit", "margin", or
            ``f(outputs, target) -> [n]``, higher is better.
        permutations: number of random orders; the reverses come on top.
        seed: seed of the orders.

    Raises:
        ValueError: if the reference or the metric is unknown, or the data can be iterated only once.

    Example:
        >>> import torch
        >>> from captum_ablate import LayerShapleyValue
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 2, bias=False)).eval()
        >>> model[1].weight.data = torch.eye(2)
        >>> x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, 3.0]])
        >>> LayerShapleyValue(model, "0", metric="logit", permutations=3).attribute(x, target=[0, 0, 1, 1]).tolist()
        [1.5, 1.0]
    """

    metric: str | Metric = "accuracy"
    permutations: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.permutations = whole_number(self.permutations, "permutations", least=1)
        self.seed = whole_number(self.seed, "seed", least=0)

    def plan(self, units: int) -> Plan:
        stream = torch.Generator().manual_seed(self.seed)
        orders = [torch.randperm(units, generator=stream) for _ in range(self.permutations)]
        return Plan.both_ways(orders, tuple(range(1, units + 1)), units)

    def losses(self, plan: Plan, measured: Measured) -> Tensor:
        total = torch.zeros(plan.units, len(measured.intact), dtype=torch.float64)
        for chain, row in zip(plan.chains, plan.rows, strict=True):
            curve = torch.cat([measured.intact[None], measured.values[list(row)]]).to(torch.float64)  # [units + 1, n]
            total.index_add_(0, chain.order, curve[:-1] - curve[1:])
        return total / len(plan.chains)
