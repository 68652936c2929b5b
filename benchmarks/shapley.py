"""Time of Shapley values of the 128 units of a layer: hook loop over ours (``python -m benchmarks.shapley``).

100 permutations, each with its reverse on top, for 500 images: about 25,200 distinct masks. The perceptron is measured
in full, the ResNet on few permutations and images, and scaled. The hook loop is timed on 200 masks, and scaled too.
Values of one permutation must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.cases import Case, hook_loop
from benchmarks.side_by_side import CPU, Options, in_turns, run_cases
from captum_ablate import LayerShapleyValue

PERMUTATIONS, IMAGES, MASKS = 100, 500, 200


@dataclass(frozen=True)
class Perceptron(Case):
    """A perceptron 784-128-64-10: the units of its first hidden layer."""

    def build(
        self, images: int, batch: int, device: torch.device = CPU
    ) -> tuple[nn.Module, nn.Module, int, list[tuple[Tensor, Tensor]]]:
        """Return the model, the layer, its number of units, and the batches."""
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
        ).eval()  # fmt: skip
        x = torch.rand(images, 784)
        y = (model(x) - model(x).mean(dim=0)).argmax(dim=1)
        model, x, y = model.to(device), x.to(device), y.to(device)
        return model, model[1], 128, list(zip(x.split(batch), y.split(batch), strict=True))


CASES = {
    Perceptron("perceptron 784-128-64-10", "relu1"): (PERMUTATIONS, IMAGES),
    Case("resnet18", "layer2.0", side=64): (2, 32),
}
"""Permutations and images that are measured."""


def compare(case: Case, options: Options) -> dict[str, object]:
    """Return one row of the table."""
    permutations, images = CASES[case]
    model, layer, units, batches = case.build(images, options.batch, options.device)
    one = LayerShapleyValue(model, layer, metric="logit", permutations=1)
    ours = LayerShapleyValue(model, layer, metric="logit", permutations=permutations)
    order, counts = one.plan(units).chains[0].order, torch.arange(1, units + 1)

    def loop(forth: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean logit at these counts of the first permutation, and of its reverse."""
        both = [(order, forth), (order.flip(0), back)]
        found = [hook_loop(model, layer, one, some, batches, case.unit_dim)[1] for one, some in both]
        return found[0], found[1]

    times, results = in_turns(
        options.rounds,
        {"plain": lambda: loop(counts, counts[: MASKS - units]), "ours": lambda: ours.attribute(batches)},
        options.device,
    )
    _, rest = loop(counts[:0], counts[MASKS - units :])
    forth, back = results["plain"][0], torch.cat([results["plain"][1], rest])
    difference = _difference(one, model, batches, order, forth, back)
    whole, measured = (len(_of(ours, k).plan(units)) for k in (PERMUTATIONS, permutations))
    more = IMAGES / images
    plain, own = times["plain"] * more * whole / MASKS, times["ours"] * more * whole / measured
    return {
        "network": case.model,
        "layer": case.layer,
        "masks": whole,
        "measured": f"{permutations} permutations, {images} images",
        "hook loop, s": float(np.median(plain)),
        "ours, s": float(np.median(own)),
        "ratio": float(np.median(plain / own)),
        "largest difference": difference,
    }


def _of(method: LayerShapleyValue, permutations: int) -> LayerShapleyValue:
    return LayerShapleyValue(method.forward_func, method.layer, permutations=permutations)


def _difference(
    one: LayerShapleyValue,
    model: nn.Module,
    batches: list[tuple[Tensor, Tensor]],
    order: Tensor,
    forth: Tensor,
    back: Tensor,
) -> float:
    """Return the largest difference between the values of one permutation, relative to the largest logit.

    Raises:
        AssertionError: if it exceeds 1e-5.
    """
    with torch.no_grad():
        outputs = torch.cat([model(x).cpu() for x, _ in batches])
    y = torch.cat([target.cpu() for _, target in batches])
    intact = outputs.gather(1, y[:, None]).mean()
    expected = torch.zeros(len(order))
    for which, curve in ((order, forth), (order.flip(0), back)):
        values = torch.cat([intact[None], curve])
        expected[which] += (values[:-1] - values[1:]) / 2
    found = one.attribute(batches).cpu()
    scale = float(outputs.abs().max())
    torch.testing.assert_close(found, expected.double(), rtol=0, atol=1e-5 * scale)
    return float((found - expected).abs().max()) / scale


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, row by row."""
    run_cases([*CASES], compare, Options.parse("shapley", __doc__, arguments, images=IMAGES, batch=100))
    print(f"scaled to {PERMUTATIONS} permutations, reverses on top, and {IMAGES} images; hook loop from {MASKS} masks")


if __name__ == "__main__":
    main()
