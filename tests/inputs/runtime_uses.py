"""A network, and one use of each kind of it: a statistic, unit scores, the evaluator, and slow oracles of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum.attr import LayerConductance, LayerFeatureAblation
from torch import Tensor, nn

from captum_ablate import CumulativeAblationEvaluator, LayerMeanActivity, LayerUnitAblation, unit_scores

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(40) % 3
UNITS = 8
ORDER = torch.tensor([3.0, 1.0, 6.0, 0.0, 2.0, 7.0, 5.0, 4.0])


def network() -> nn.Sequential:
    """Return the same small network each time; "1" is the layer."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Linear(6, UNITS), nn.ReLU(), nn.Linear(UNITS, 7), nn.ReLU(), nn.Linear(7, 3)
    return nn.Sequential(*layers).eval()


def uses(
    forward: Any, layer: Any = "1", data: Any = (X, Y), captum_layer: Any = None, batch_size: int | None = None
) -> dict[str, Callable[[], Tensor]]:
    """Return one use of each kind, by name; ``captum_layer`` is the module that ``layer`` names."""
    module = layer if captum_layer is None else captum_layer
    evaluator = lambda: CumulativeAblationEvaluator(forward, layer, metric="logit", steps=None, n_random=1)  # noqa: E731
    return {
        "activity": lambda: LayerMeanActivity(forward, layer).attribute(*data, batch_size=batch_size),
        "ablation": lambda: LayerUnitAblation(forward, layer, metric="logit").attribute(*data, batch_size=batch_size),
        "conductance": lambda: unit_scores(LayerConductance(forward, module), data, n_steps=5, batch_size=batch_size),
        "feature ablation": lambda: unit_scores(LayerFeatureAblation(forward, module), data, batch_size=batch_size),
        "evaluator": lambda: evaluator().evaluate(ORDER, data, batch_size=batch_size).values,
    }


NAMES = list(uses(None))


def curve_of(model: Callable[[Tensor], Tensor], layer: nn.Module, order: list[int] | None = None) -> Tensor:
    """Return each sample's logit ``[steps, n]`` when a hook writes zeros into ever more units, by default in ORDER."""
    order, columns = ORDER.argsort(descending=True).tolist() if order is None else order, []
    for k in range(len(order) + 1):

        def ablate(_module: Any, _args: Any, output: Tensor, k: int = k) -> Tensor:
            plain = (output.dequantize() if output.is_quantized else output).clone()
            plain[:, order[:k]] = 0
            if not output.is_quantized:
                return plain
            return torch.quantize_per_tensor(plain, output.q_scale(), output.q_zero_point(), output.dtype)

        handle = layer.register_forward_hook(ablate)
        try:
            with torch.no_grad():
                columns.append(model(X)[torch.arange(len(X)), Y])
        finally:
            handle.remove()
    return torch.stack(columns).double()


def activity_of(model: Callable[[Tensor], Tensor], layer: nn.Module, x: Tensor = X) -> Tensor:
    """Return each unit's mean activity over the samples, ``[units]``."""
    seen: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        with torch.no_grad():
            model(x)
    finally:
        handle.remove()
    return (seen[0].dequantize() if seen[0].is_quantized else seen[0]).double().mean(0)


def close(found: Tensor, expected: Tensor, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=atol)
