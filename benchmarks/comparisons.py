"""Time to compare 4 rankings with 5 random orders, 20 steps, one direction (``python -m benchmarks.comparisons``).

The hook loop runs one of the nine orders, the first, and its time counts nine times: any order costs it the same number
of forward passes. That order's accuracies must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.cases import CASES, Case, hook_loop
from benchmarks.curves import STEPS
from benchmarks.side_by_side import Options, in_turns, run_cases
from captum_ablate import CumulativeAblationEvaluator

RANKINGS, RANDOM = 4, 5


def compare(case: Case, options: Options) -> dict[str, object]:
    """Return one row of the table."""
    model, layer, units, batches = case.build(options.images, options.batch)
    evaluator = CumulativeAblationEvaluator(
        model, layer, steps=STEPS, ascending=False, n_random=RANDOM, unit_dim=case.unit_dim
    )
    rankings = {f"ranking {k}": torch.rand(units) for k in range(RANKINGS)}
    first = evaluator.compare(rankings, batches)["ranking 0"]
    times, results = in_turns(
        options.rounds,
        {
            "plain": lambda: hook_loop(model, layer, first.order, first.n_ablated, batches, case.unit_dim),
            "ours": lambda: evaluator.compare(rankings, batches)["ranking 0"],
        },
    )
    torch.testing.assert_close(results["plain"].double(), results["ours"].score, rtol=0, atol=1e-6)
    plain = (RANKINGS + RANDOM) * times["plain"]
    return {
        "network": case.model,
        "layer": case.layer,
        "units": units,
        "hook loop, s": float(np.median(plain)),
        "ours, s": float(np.median(times["ours"])),
        "ratio": float(np.median(plain / times["ours"])),
        "way": results["ours"].engine,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, row by row, and the geometric mean of its ratios."""
    run_cases(CASES, compare, Options.parse("comparisons", __doc__, arguments))


if __name__ == "__main__":
    main()
