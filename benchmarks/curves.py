"""Time of a 20-step curve, one direction, on ten cases: the hook loop's over ours (``python -m benchmarks.curves``).

Loop and engine take turns in one run, so that a noisy machine disturbs both; each ratio is a median over the rounds.
Their accuracies must be equal. Weights are random, images are noise: time does not depend on them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchvision
from torch import Tensor, nn

from captum_ablate import CumulativeAblationEvaluator
from captum_ablate.layers import find_layer

STEPS = 20


@dataclass(frozen=True)
class Case:
    model: str
    layer: str
    side: int = 160
    unit_dim: int = 1


CASES = (
    Case("resnet18", "conv1"),
    Case("resnet18", "layer2.0"),
    Case("resnet18", "layer3.1"),
    Case("resnet18", "layer4.0"),
    Case("resnet18", "layer4.1"),
    Case("densenet121", "features.denseblock3"),
    Case("mobilenet_v2", "features.14"),
    Case("vgg11", "features.18"),
    Case("alexnet", "classifier.1", side=224),
    Case("vit_b_16", "encoder.layers.encoder_layer_9.mlp", side=224, unit_dim=-1),
)


def hook_loop(
    model: nn.Module, layer: nn.Module, order: Tensor, counts: Tensor, batches: list[tuple[Tensor, Tensor]], dim: int
) -> Tensor:
    """What everybody writes: one full forward pass with a hook per step and batch; accuracy per step."""
    right = torch.zeros(len(counts))
    with torch.no_grad():
        for k, count in enumerate(counts):
            units = order[:count]

            def ablate(_module: nn.Module, _args: object, output: Tensor, units: Tensor = units) -> Tensor:
                output = output.clone()
                output.index_fill_(dim, units, 0.0)
                return output

            handle = layer.register_forward_hook(ablate)
            for x, y in batches:
                right[k] += (model(x).argmax(1) == y).sum()
            handle.remove()
    return right / sum(len(y) for _, y in batches)


def compare(case: Case, images: int, batch: int, rounds: int) -> dict[str, object]:
    """Return one row of the table."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, case.model)().eval()
    layer = find_layer(model, case.layer)
    x = torch.randn(images, 3, case.side, case.side)
    with torch.no_grad():
        y = torch.cat([model(part) for part in x.split(batch)]).argmax(1)  # so that accuracy starts at 1 and falls
    y[0] = (y[0] + 1) % 1000  # two classes at least
    batches = list(zip(x.split(batch), y.split(batch), strict=True))
    evaluator = CumulativeAblationEvaluator(
        model, layer, steps=STEPS, ascending=False, n_random=0, unit_dim=case.unit_dim
    )
    with torch.no_grad():
        units = evaluator.axis.count(_shape_of(model, layer, x[:1]))
    scores = torch.rand(units)
    curve = evaluator.evaluate(scores, batches)  # a round to warm up, and for its order
    times = []
    for _ in range(rounds):
        plain, scores_of_loop = _timed(
            lambda: hook_loop(model, layer, curve.order, curve.n_ablated, batches, case.unit_dim)
        )
        ours, _ = _timed(lambda: evaluator.evaluate(scores, batches))
        torch.testing.assert_close(scores_of_loop.double(), curve.score, rtol=0, atol=1e-6)
        times.append((plain, ours))
    plain, ours = np.array(times).T
    return {
        "network": case.model,
        "layer": case.layer,
        "units": units,
        "hook loop, s": float(np.median(plain)),
        "ours, s": float(np.median(ours)),
        "ratio": float(np.median(plain / ours)),
        "engine": curve.engine,
    }


def _timed(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def _shape_of(model: nn.Module, layer: nn.Module, x: Tensor) -> torch.Size:
    shapes: list[torch.Size] = []
    handle = layer.register_forward_hook(lambda _module, _args, output: shapes.append(output.shape))
    model(x)
    handle.remove()
    return shapes[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, row by row, and the geometric mean of its ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose network and layer contain this")
    parser.add_argument("--out", type=Path, help="a CSV file to write")
    options = parser.parse_args(arguments)
    rows = []
    for case in CASES:
        if options.only in f"{case.model} {case.layer}":
            rows.append(compare(case, options.images, options.batch, options.rounds))
            shown = {k: f"{v:.2f}" if isinstance(v, float) else v for k, v in rows[-1].items()}
            print("  ".join(f"{k} {v}" for k, v in shown.items()), flush=True)
    table = pd.DataFrame(rows)
    if options.out is not None:
        table.to_csv(options.out, index=False)
    ratios = table["ratio"]
    print(
        f"\n{STEPS} steps, {options.images} images in batches of {options.batch}, {torch.get_num_threads()} threads: "
        f"geometric mean {np.exp(np.log(ratios).mean()):.1f}x, worst {ratios.min():.2f}x"
    )


if __name__ == "__main__":
    main()
