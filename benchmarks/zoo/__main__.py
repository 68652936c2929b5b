"""``python -m benchmarks.zoo [NETWORK ...]``: run or continue the sweep."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import zoo
from benchmarks.zoo.networks import names
from benchmarks.zoo.report import table_of
from benchmarks.zoo.sweep import CACHE, sweep


def main(arguments: Sequence[str] | None = None) -> None:
    """Run or continue the sweep, and print its summary."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=zoo.__doc__)
    parser.add_argument("networks", nargs="*", help="names of networks; all of them by default")
    parser.add_argument("--state", type=Path, default=CACHE, help="the CSV file of results")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--memory", type=float, default=10.0, help="GB that a network may take")
    options = parser.parse_args(arguments)
    if options.fresh:
        options.state.unlink(missing_ok=True)
    print("\n" + table_of(sweep(options.networks or names(), options.state, options.memory)))


if __name__ == "__main__":
    main()
