"""``captum-ablate methods``: the methods that ``compare`` knows by name, one a line."""

from __future__ import annotations

import argparse

import pandas as pd

from captum_ablate.attr.catalogue import CATALOGUE
from captum_ablate.commands import Commands


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "methods",
        help="list the methods that compare knows by name",
        description="List the methods that captum-ablate compare --methods knows by name: what each scores, what it "
        "costs beyond the ablation, and its source. Those with a star run unless others are named.",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    rows = [("*" if e.is_default else "", e.name, e.what, e.cost, e.source) for e in CATALOGUE]
    table = pd.DataFrame(rows, columns=["", "method", "what it is", "cost", "source"])
    for name in table.columns:
        width = max(len(name), *table[name].map(len))
        table[name] = table[name].str.ljust(width)
        table = table.rename(columns={name: name.ljust(width)})
    print("\n".join(line.rstrip() for line in table.to_string(index=False).splitlines()))
    print("* runs unless others are named, as in --methods conductance,mutual-information")
