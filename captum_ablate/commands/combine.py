"""``captum-ablate combine``: what the comparisons on several networks say together."""

from __future__ import annotations

import argparse
from pathlib import Path

from captum_ablate.commands import Commands
from captum_ablate.commands.run_folder import load_all
from captum_ablate.evaluation.combined import combine


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "combine",
        help="combine comparisons on several networks",
        description="Combine the saved comparisons of several networks: mean ranks with intervals over networks (from "
        "5 up), best sets counted, references side by side. Each DIR is one network: the folder of a comparison, or of "
        "a run with several layers and references.",
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder of one network, written by compare")
    parser.add_argument("--out", default="combined.html", metavar="FILE", help="the report (combined.html)")
    parser.add_argument("--latex", action="store_true", help="print the tables for LaTeX (booktabs)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    folders = [Path(name).expanduser() for name in options.folders]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError("a folder is named twice, and would count as two networks")
    combined = combine({str(folder): list(load_all(str(folder)).values()) for folder in folders})
    print(combined.to_latex() if options.latex else combined)
    print(f"report: {combined.report(Path(options.out).expanduser())}")
