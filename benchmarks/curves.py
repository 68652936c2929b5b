"""Time of a 20-step curve, one direction, on ten cases: the hook loop's over ours (``python -m benchmarks.curves``).

Loop and engine take turns in one run; each ratio is a median over the rounds, and their accuracies must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.cases import CASES, Case, hook_loop
from benchmarks.side_by_side import Options, in_turns, run_cases
from captum_ablate import CumulativeAblationEvaluator

STEPS = 20


def compare(case: Case, options: Options) -> dict[str, object]:
    """Return one row of the table."""
    model, layer, units, batches = case.build(options.images, options.batch)
    evaluator = CumulativeAblationEvaluator(
        model, layer, steps=STEPS, ascending=False, n_random=0, unit_dim=case.unit_dim
    )
    scores = torch.rand(units)
    first = evaluator.evaluate(scores, batches)  # a round to warm up, and for its order
    times, results = in_turns(
        options.rounds,
        {
            "plain": lambda: hook_loop(model, layer, first.order, first.n_ablated, batches, case.unit_dim),
            "ours": lambda: evaluator.evaluate(scores, batches),
        },
    )
    torch.testing.assert_close(results["plain"].double(), results["ours"].score, rtol=0, atol=1e-6)
    return {
        "network": case.model,
        "layer": case.layer,
        "units": units,
        "hook loop, s": float(np.median(times["plain"])),
        "ours, s": float(np.median(times["ours"])),
        "ratio": float(np.median(times["plain"] / times["ours"])),
        "way": results["ours"].engine,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, row by row, and the geometric mean of its ratios."""
    run_cases(CASES, compare, Options.parse("curves", __doc__, arguments))


if __name__ == "__main__":
    main()
