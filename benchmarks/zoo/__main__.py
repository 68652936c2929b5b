"""``python -m benchmarks.zoo [NETWORK ...]``: run or continue the sweep.

By cost, many of these small jobs would run full passes, which the sweep compares with: so it asks for ``--execution``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import zoo
from benchmarks.zoo.networks import names
from benchmarks.zoo.report import table_of
from benchmarks.zoo.sweep import CACHE, sweep
from captum_ablate.ablation import choose


def main(arguments: Sequence[str] | None = None) -> None:
    """Run or continue the sweep, and print its summary."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=zoo.__doc__)
    parser.add_argument("networks", nargs="*", help="names of networks; all of them by default")
    parser.add_argument("--state", type=Path, default=CACHE, help="the CSV file of results")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--memory", type=float, default=10.0, help="GB that a network may take")
    parser.add_argument("--quick", action="store_true", help="two layers of each network, and two images")
    parser.add_argument(
        "--execution",
        default="closed form, update, stacked",
        help='what the engine runs where it can, such as "graph"; "" lets it choose',
    )
    options = parser.parse_args(arguments)
    choose.FORCED = options.execution or None
    if options.fresh:
        options.state.unlink(missing_ok=True)
    print("\n" + table_of(sweep(options.networks or names(), options.state, options.memory, quick=options.quick)))


if __name__ == "__main__":
    main()
