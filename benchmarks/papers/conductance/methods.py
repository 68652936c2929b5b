"""The four attributions that Dhamdhere, Sundararajan and Yan compare, and random scores as a control."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from captum.attr import InternalInfluence, LayerActivation, LayerAttribution, LayerConductance, LayerGradientXActivation
from torch import Tensor, nn

STEPS = 20
"""Steps of the path from the baseline (zero, which is the mean colour) to the image."""

BATCH = 16
"""Images per batch: path methods run each image ``STEPS`` + 1 times at once."""

Make = Callable[[nn.Module, nn.Module], Any]


@dataclass(frozen=True)
class Method:
    """An attribution of one layer, further arguments of ``attribute``, and the reduction over positions."""

    make: Make
    options: Mapping[str, Any] = field(default_factory=dict)
    positions: str = "sum"


class RandomScores(LayerAttribution):
    """Scores without information: one random number for each sample and channel."""

    def __init__(self, forward_func: nn.Module, layer: nn.Module, seed: int = 0) -> None:
        super().__init__(forward_func, layer)
        self.stream = torch.Generator().manual_seed(seed)

    def attribute(self, inputs: Tensor, target: Any = None) -> Tensor:
        seen: list[torch.Size] = []
        handle = self.layer.register_forward_hook(lambda _module, _args, output: seen.append(output.shape))
        with torch.no_grad():
            self.forward_func(inputs)
        handle.remove()
        n, units, *positions = seen[0]
        return torch.rand(n, units, *(1 for _ in positions), generator=self.stream)


METHODS: dict[str, Method] = {
    "conductance": Method(LayerConductance, {"n_steps": STEPS}),
    "gradient x activation": Method(LayerGradientXActivation),
    "internal influence": Method(InternalInfluence, {"n_steps": STEPS}),
    "activation": Method(LayerActivation, positions="mean"),  # a sum would put the layers with large maps first
}
CONTROL = {"random": Method(RandomScores)}
