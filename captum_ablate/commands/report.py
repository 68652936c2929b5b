"""``captum-ablate report``: write the reports of saved comparisons anew, and print what they say."""

from __future__ import annotations

import argparse

from captum_ablate.commands import Commands
from captum_ablate.commands.run_folder import REPORT, load_all, write_report
from captum_ablate.commands.summary import printed


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "report",
        help="print saved comparisons, and write their reports anew",
        description="Print the leaderboard and the verdict of saved comparisons, and write report.html and "
        "leaderboard.csv beside them anew. DIR is the folder of a comparison, or of a run with several.",
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder that compare, or comparison.save, wrote")
    parser.add_argument("--latex", action="store_true", help="print the leaderboards as tables for LaTeX (booktabs)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    found = [one for name in options.folders for one in load_all(name).items()]
    for number, (folder, comparison) in enumerate(found):
        write_report(comparison, folder)
        if options.latex:
            print(comparison.to_latex())
            continue
        print(
            f"{printed(comparison)}\n\n{comparison.verdict}\n\nreport: {folder / REPORT}"
            + "\n" * (number < len(found) - 1)
        )
