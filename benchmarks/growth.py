"""Growth of time with images, steps, methods and units, as fitted exponents (``python -m benchmarks.growth``).

ResNet-18, 64 px. Sizes take turns within a round. The exponent is the slope of log time (median over rounds) on log
size, by least squares, with its 95 % interval. 1 is proportional; costs that do not depend on size (checks, one trace
per batch) lower it. The plain hook loop has exponent 1 in images, steps, methods and single units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn

from benchmarks.cases import Case
from benchmarks.side_by_side import Options, in_turns, keep
from benchmarks.tables import markdown
from captum_ablate import CumulativeAblationEvaluator, LayerUnitAblation

LAYER = Case("resnet18", "layer4.0", 64)
UNITS_LAYER = Case("resnet18", "layer3.1", 64)


@dataclass(frozen=True)
class Series:
    """One quantity at several sizes; ``runs[size]`` is the work to time."""

    name: str
    runs: dict[int, Callable[[], object]]


def all_series(images: int, batch: int) -> Iterator[Series]:
    """Yield the series; all but the first use ``images`` in batches of ``batch``."""
    model, layer, units, batches = LAYER.build(16 * images, batch)
    few = batches[: images // batch]
    scores = torch.rand(16, units)

    def evaluator(steps: int = 20) -> CumulativeAblationEvaluator:
        return CumulativeAblationEvaluator(model, layer, steps=steps, n_random=0)

    def methods(m: int) -> dict[str, Tensor]:
        return {str(k): scores[k] for k in range(m)}

    yield Series(
        "images, curve of 20 steps",
        {k * images: _call(evaluator().evaluate, scores[0], batches[: k * images // batch]) for k in (1, 2, 4, 8, 16)},
    )
    yield Series("steps of a curve", {k: _call(evaluator(k).evaluate, scores[0], few) for k in (5, 10, 20, 40, 80)})
    yield Series("methods, 20 steps each", {m: _call(evaluator().compare, methods(m), few) for m in (1, 2, 4, 8, 16)})
    model, layer, units, batches = UNITS_LAYER.build(images, batch)
    yield Series(
        "units, each alone", {g: _units_alone(model, layer, units, g, batches) for g in (16, 32, 64, 128, 256)}
    )
    yield Series(
        "units, curve of 16 steps", {g: _curve(model, layer, units, g, batches) for g in (16, 32, 64, 128, 256)}
    )


def _call(function: Callable[..., object], *arguments: object) -> Callable[[], object]:
    return lambda: function(*arguments)


def _units_alone(
    model: nn.Module, layer: nn.Module, channels: int, units: int, batches: list[tuple[Tensor, Tensor]]
) -> Callable[[], object]:
    """Ablate the same layer in ``units`` groups of channels: the suffix costs the same at every size."""
    ablation = LayerUnitAblation(model, layer, metric="logit", layer_mask=torch.arange(channels) % units)
    return lambda: ablation.attribute(batches)


def _curve(
    model: nn.Module, layer: nn.Module, channels: int, units: int, batches: list[tuple[Tensor, Tensor]]
) -> Callable[[], object]:
    mask = torch.arange(channels) % units
    evaluator = CumulativeAblationEvaluator(model, layer, steps=16, n_random=0, layer_mask=mask)
    scores = torch.rand(units)
    return lambda: evaluator.evaluate(scores, batches)


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float, float]:
    """Return the slope of log seconds on log size, and its 95 % interval."""
    fit = stats.linregress(np.log(sizes), np.log(seconds))
    half = stats.t.ppf(0.975, len(sizes) - 2) * fit.stderr
    return fit.slope, fit.slope - half, fit.slope + half


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per series."""
    options = Options.parse("growth", __doc__, arguments, images=16, batch=16)
    rows = []
    for series in all_series(options.images, options.batch):
        if options.only not in series.name:
            continue
        next(iter(series.runs.values()))()  # to warm up
        times, _ = in_turns(options.rounds, {str(size): run for size, run in series.runs.items()})
        medians = [float(np.median(times[str(size)])) for size in series.runs]
        value, low, high = exponent(list(series.runs), medians)
        rows.append(
            {
                "grows with": series.name,
                "sizes": " ".join(map(str, series.runs)),
                "seconds": " ".join(f"{s:.2f}" for s in medians),
                "exponent": f"{value:.2f} [{low:.2f}, {high:.2f}]",
            }
        )
        print("  ".join(rows[-1].values()), flush=True)
        keep([rows[-1] | {"setting": str(options)}], ["grows with"], options.out)
    print(f"\n{markdown(pd.DataFrame(rows))}\n\n{options}")


if __name__ == "__main__":
    main()
