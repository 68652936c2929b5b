"""``python -m benchmarks.papers NAME [--quick | --full]``: run one paper's protocol and write its page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from benchmarks.papers.scale import Scale

PAPERS = ("amjad", "dhamdhere", "hayne", "marshall", "omahony")
OWN = ("attributions", "index", "joined")
"""Not papers: our table of all attributions, the page over everything, and spectra beside curves."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.papers", description=__doc__)
    parser.add_argument("name", choices=[*PAPERS, *OWN])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_const", dest="scale", const=Scale.QUICK, help="seconds; writes no page")
    size.add_argument("--full", action="store_const", dest="scale", const=Scale.FULL, help="no limit of time")
    parser.set_defaults(scale=Scale.NORMAL)
    asked = parser.parse_args(arguments)
    import_module(f"benchmarks.papers.{asked.name}").run(asked.scale)


if __name__ == "__main__":
    main()
