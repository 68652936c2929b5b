"""Score hidden units over a labelled data set, and examine the code of layers: the command ``captum-ablate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from captum_ablate import __version__
from captum_ablate.commands import demo, midrange, spectrum


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"captum-ablate: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="captum-ablate", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in (demo, midrange, spectrum):
        command.add(commands)
    return parser
