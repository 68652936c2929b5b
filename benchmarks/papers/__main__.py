"""``python -m benchmarks.papers NAME [--quick | --full]``: run one paper's protocol and write its page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from benchmarks.papers.common.scale import Scale

PAPERS = {
    "amjad": "amjad.page",
    "dhamdhere": "conductance.page",
    "hayne": "hayne.page",
    "marshall": "marshall.page",
    "omahony": "omahony.page",
}
"""The module of each paper; its ``run`` takes a ``Scale``."""

OURS = {"attributions": "index.attributions", "index": "index.page", "joined": "index.redundancy"}
"""No papers: the table of all attributions, the page over everything, and redundancy by spectra and by curves."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line names."""
    modules = PAPERS | OURS
    parser = argparse.ArgumentParser(prog="python -m benchmarks.papers", description=__doc__)
    parser.add_argument("name", choices=list(modules))
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_const", dest="scale", const=Scale.QUICK, help="seconds; writes no page")
    size.add_argument("--full", action="store_const", dest="scale", const=Scale.FULL, help="no limit of time")
    parser.set_defaults(scale=Scale.NORMAL)
    asked = parser.parse_args(arguments)
    import_module(f"benchmarks.papers.{modules[asked.name]}").run(asked.scale)


if __name__ == "__main__":
    main()
