"""Time of a 20-step curve and its reverse, on ten cases: hook loop over ours (``python -m benchmarks.curves``).

Both take turns within one run. Each ratio is a median over the rounds, and the accuracies must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from benchmarks.cases import CASES, Case, both_ways, check_equal
from benchmarks.side_by_side import Options, in_turns, run_cases
from captum_ablate import CumulativeAblationEvaluator

STEPS = 20


def compare(case: Case, options: Options) -> dict[str, object]:
    """Return one row of the table."""
    model, layer, units, batches = case.build(options.images, options.batch, options.device)
    made = partial(CumulativeAblationEvaluator, model, layer, steps=STEPS, n_random=0, unit_dim=case.unit_dim)
    evaluator, scores = made(), torch.rand(units)
    first = made(metric="logit").evaluate(scores, batches)  # warms up, and gives the order and the logits to compare
    times, results = in_turns(
        options.rounds,
        {
            "plain": lambda: both_ways(model, layer, first.order, first.n_ablated, batches, case.unit_dim),
            "ours": lambda: evaluator.evaluate(scores, batches),
        },
        options.device,
    )
    check_equal(results["plain"], results["ours"].score, first.score)
    return {
        "network": case.model,
        "layer": case.layer,
        "units": units,
        "hook loop, s": float(np.median(times["plain"])),
        "ours, s": float(np.median(times["ours"])),
        "ratio": float(np.median(times["plain"] / times["ours"])),
        "execution": results["ours"].engine,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, row by row, and the geometric mean of its ratios."""
    run_cases(CASES, compare, Options.parse("curves", __doc__, arguments))


if __name__ == "__main__":
    main()
