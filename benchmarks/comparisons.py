"""Time of a comparison: 4 rankings, 5 random orders, 20 steps, both ways (``python -m benchmarks.comparisons``).

The hook loop runs the first of the nine orders and its reverse, and its time counts nine times: every order costs it as
many forward passes. The accuracies of that order must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from benchmarks.cases import CASES, Case, both_ways, check_equal
from benchmarks.curves import STEPS
from benchmarks.side_by_side import Options, in_turns, run_cases
from captum_ablate import CumulativeAblationEvaluator

RANKINGS, RANDOM = 4, 5


def compare(case: Case, options: Options) -> dict[str, object]:
    """Return one row of the table."""
    model, layer, units, batches = case.build(options.images, options.batch, options.device)
    made = partial(CumulativeAblationEvaluator, model, layer, steps=STEPS, unit_dim=case.unit_dim)
    evaluator = made(n_random=RANDOM)
    rankings = {f"ranking {k}": torch.rand(units) for k in range(RANKINGS)}
    first = made(n_random=0, metric="logit").evaluate(rankings["ranking 0"], batches)
    times, results = in_turns(
        options.rounds,
        {
            "plain": lambda: both_ways(model, layer, first.order, first.n_ablated, batches, case.unit_dim),
            "ours": lambda: evaluator.compare(rankings, batches)["ranking 0"],
        },
        options.device,
    )
    check_equal(results["plain"], results["ours"].score, first.score)
    plain = (RANKINGS + RANDOM) * times["plain"]
    return {
        "network": case.model,
        "layer": case.layer,
        "units": units,
        "hook loop, s": float(np.median(plain)),
        "ours, s": float(np.median(times["ours"])),
        "ratio": float(np.median(plain / times["ours"])),
        "execution": results["ours"].engine,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, row by row, and the geometric mean of its ratios."""
    run_cases(CASES, compare, Options.parse("comparisons", __doc__, arguments))


if __name__ == "__main__":
    main()
