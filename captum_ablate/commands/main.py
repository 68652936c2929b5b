"""Score hidden units over a labelled data set, and examine the code of layers: the command ``captum-ablate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from captum_ablate import __version__
from captum_ablate.commands import demo, midrange, spectrum


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"captum-ablate: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say in one line what is wrong, and where the options are listed."""
        self.exit(2, f"captum-ablate: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="captum-ablate", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in (demo, midrange, spectrum):
        command.add(commands)
    return parser
