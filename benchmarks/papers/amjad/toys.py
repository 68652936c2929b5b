"""Networks with a known answer: a twin for every unit, XOR of two units, units removed and balanced."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.papers.amjad.protocol import Case, methods, parts
from benchmarks.papers.common.classifiers import dense
from benchmarks.papers.common.scale import Scale
from captum_ablate import CumulativeAblationEvaluator, LayerMeanActivity, LayerUnitAblation
from captum_ablate.studies import PairwiseSynergy, bias_balanced, pairwise_synergy, redundancy


@dataclass(frozen=True)
class Twins:
    """Changes when every unit of a layer gets a twin and both carry half of the outgoing weights.

    ``unchanged`` is the absolute change of accuracy. ``flatter`` and ``flatter_random`` are those of the mean
    accuracy over the first half of the curve, in descending and in random orders. ``more_redundant`` is that of the
    redundancy.
    """

    unchanged: float
    flatter: float
    flatter_random: float
    more_redundant: float


def doubled(network: nn.Sequential, before: str, after: str) -> nn.Sequential:
    """Return a copy in which each unit of the layer between ``before`` and ``after`` stands twice, at half weight."""
    copy = deepcopy(network)
    first_, second = copy.get_submodule(before), copy.get_submodule(after)
    assert isinstance(first_, nn.Linear)
    assert isinstance(second, nn.Linear)
    units = first_.out_features
    wide, narrow = nn.Linear(first_.in_features, 2 * units), nn.Linear(2 * units, second.out_features)
    with torch.no_grad():
        wide.weight.copy_(first_.weight.repeat_interleave(2, dim=0))
        wide.bias.copy_(first_.bias.repeat_interleave(2))
        narrow.weight.copy_(second.weight.repeat_interleave(2, dim=1) / 2)
        narrow.bias.copy_(second.bias)
    setattr(copy, before, wide)
    setattr(copy, after, narrow)
    return copy.eval()


def twins(case: Case, scale: Scale) -> Twins:
    """Return the changes when the first hidden layer is doubled."""
    network = dense(case.data, case.activation, case.seed, scale).network
    assert isinstance(network, nn.Sequential)
    ranked, evaluated = parts(case.data, scale)
    found = []
    for model in (network, doubled(network, "linear1", "linear2")):
        evaluator = CumulativeAblationEvaluator(
            model, "act1", n_random=10, steps=scale.pick(5, 10, 20), seed=case.seed, live_units_only=False
        )
        attribution = methods(case.activation)["mutual information"](model, "act1")
        comparison = evaluator.compare({"information": attribution}, evaluated, ranking_data=ranked, batch_size=2_000)
        curve, random = comparison["information"], comparison.random.score.mean(dim=0)
        single = LayerUnitAblation(model, "act1", metric="accuracy").attribute(*evaluated)
        half = curve.fraction <= 0.5
        row = [curve.score[0], curve.score[half].mean(), random[half].mean()]
        found.append([*map(float, row), redundancy(curve, single).value])
    changes = np.subtract(found[1], found[0])
    return Twins(abs(changes[0]), *changes[1:])


class Xor(nn.Module):
    """Two units copy two bits; the class is their XOR, |x - y| against a half."""

    def __init__(self) -> None:
        super().__init__()
        self.units = nn.Identity()

    def forward(self, bits: Tensor) -> Tensor:
        shown = self.units(bits)
        either = (shown[:, 0] - shown[:, 1]).abs()
        return torch.stack([torch.full_like(either, 0.5), either], dim=1)


def xor() -> tuple[PairwiseSynergy, float, float]:
    """Return the synergy of both units, the larger information of one alone, and the accuracy without one."""
    bits = torch.tensor(list(product([0.0, 1.0], repeat=2)) * 25)
    target = (bits[:, 0] != bits[:, 1]).long()
    deficits = LayerUnitAblation(Xor().eval(), "units", metric="accuracy").attribute(bits, target=target)
    found = pairwise_synergy(bits, target, threshold=0.5)
    return found, float(found.single.max()), 1 - float(deficits.min())


def balance_error(case: Case, scale: Scale) -> float:
    """Return the largest difference of any logit between removal with bias balancing and ablation to the mean."""
    network = dense(case.data, case.activation, case.seed, scale).network
    ranked, evaluated = parts(case.data, scale)
    means = LayerMeanActivity(network, "act1").attribute(*ranked)
    units = torch.randperm(len(means), generator=torch.Generator().manual_seed(case.seed))[: len(means) // 2]

    def replace(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        return output.index_copy(1, units, means[units].to(output).expand(len(output), -1))

    with torch.no_grad():
        balanced = bias_balanced(network, "linear2", units, means)(evaluated.images)
        handle = network.get_submodule("act1").register_forward_hook(replace)
        try:
            ablated = network(evaluated.images)
        finally:
            handle.remove()
    return float((balanced - ablated).abs().max())
