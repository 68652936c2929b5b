"""How often each interval holds the truth, and each test errs, by simulation (``python -m benchmarks.coverage``).

The tables go into ``docs/statistics.md``. Each case draws samples whose true value is known, ``--repeats`` times.
``before`` is the rule that a former version had. ``width`` is the mean width over 2 x 1.96 true standard deviations.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch

from benchmarks.coverage.agreement import agreement
from benchmarks.coverage.chance import chance
from benchmarks.coverage.means import means
from benchmarks.coverage.pairs import combined, differences, ranks
from benchmarks.coverage.rankings import rankings
from benchmarks.coverage.rare import rare
from benchmarks.coverage.redundancy import redundancy
from benchmarks.coverage.regression import regression
from benchmarks.coverage.share import share
from benchmarks.coverage.spectrum import spectrum
from benchmarks.coverage.until import until
from benchmarks.coverage.within import within
from benchmarks.page import fill
from benchmarks.tables import markdown

PAGE = Path(__file__).parents[2] / "docs" / "statistics.md"

TABLES: dict[str, tuple[Callable[[int], pd.DataFrame], int]] = {
    "chance": (chance, 8000),
    "within": (within, 8000),
    "rankings": (rankings, 200),
    "rare": (rare, 2000),
    "means": (means, 4000),
    "differences": (differences, 2000),
    "ranks": (ranks, 200),
    "combined": (combined, 300),
    "until": (until, 50),
    "agreement": (agreement, 200),
    "redundancy": (redundancy, 1000),
    "regression": (regression, 300),
    "spectrum": (spectrum, 100),
    "share": (share, 1000),
}
"""What makes each table, and how many repeats it takes by default."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the tables and put them into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=TABLES, nargs="*", default=[*TABLES], help="tables to make")
    parser.add_argument("--repeats", type=int, help="of each case; by default as in the page")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name in options.only:
        make, usual = TABLES[name]
        repeats = options.repeats or usual
        text = f"{markdown(make(repeats))}\n\n{repeats:,} repeats of each row."
        options.page.write_text(fill(options.page.read_text(), name, text))
        print(text, flush=True)


if __name__ == "__main__":
    main()
