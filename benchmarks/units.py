"""Time of ablating each unit of a layer alone: Captum over ours (``python -m benchmarks.units``).

Captum's ``LayerFeatureAblation`` with a mask of channels and our ``LayerUnitAblation(metric="logit")`` must return
equal values. We ablate every unit. Captum gets one feature for each of the first ``--units`` units and one for all
others. Its time is scaled to the number of forward passes for every unit: one each, and two more.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from captum.attr import LayerFeatureAblation
from torch import Tensor, nn

from benchmarks.cases import Case
from benchmarks.side_by_side import Options, in_turns, run_cases
from captum_ablate import LayerUnitAblation

CASES = (
    Case("resnet18", "layer3.1"),
    Case("resnet18", "layer4.0"),
    Case("vgg11", "features.18"),
    Case("mobilenet_v2", "features.14"),
    Case("alexnet", "classifier.1", side=224),
)


def captums(model: nn.Module, layer: nn.Module, batches: list[tuple[Tensor, Tensor]], mask: Tensor) -> Tensor:
    """Return the mean drop of the label's logit for each index of the layer, ``[indices]``, by Captum."""
    ablation = LayerFeatureAblation(model, layer)
    drops = [ablation.attribute(x, target=y, layer_mask=mask) for x, y in batches]
    return torch.cat([d.flatten(2)[:, :, 0] if d.ndim > 2 else d for d in drops]).double().mean(dim=0)


def compare(case: Case, options: Options, measured: int) -> dict[str, object]:
    """Return one row of the table."""
    model, layer, units, batches = case.build(options.images, options.batch, options.device)
    measured = min(measured, units)
    shape = (1, units, 1, 1) if case.layer != "classifier.1" else (1, units)
    mask = torch.arange(units).clamp(max=measured).reshape(shape).to(options.device)  # last: all others
    ours = LayerUnitAblation(model, layer, metric="logit")
    times, results = in_turns(
        options.rounds,
        {
            "captum": lambda: captums(model, layer, batches, mask),
            "ours": lambda: ours.attribute(batches),
        },
        options.device,
    )
    found, expected = results["ours"][:measured].double().cpu(), results["captum"][:measured].cpu()
    logits = torch.cat([model(x).detach() for x, _ in batches]).abs().max()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(logits))
    captum = times["captum"] * (units + 2) / (int(mask.max()) + 3)
    return {
        "network": case.model,
        "layer": case.layer,
        "units": units,
        "Captum, s": float(np.median(captum)),
        "ours, s": float(np.median(times["ours"])),
        "ratio": float(np.median(captum / times["ours"])),
        "largest difference": float((found - expected).abs().max() / logits),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, row by row, and the geometric mean of its ratios."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--units", type=int, default=32, help="units that Captum is timed on")
    own, others = parser.parse_known_args(arguments)
    options = Options.parse("units", __doc__, others, images=16)
    run_cases(CASES, partial(compare, measured=own.units), options)
    print(f"Captum timed on {own.units} units and the rest as one, and scaled")


if __name__ == "__main__":
    main()
