"""The command ``captum-ablate``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from captum_ablate import __version__, demo
from captum_ablate.demo_data import RECIPES


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        demo.run(
            options.data,
            layer=options.layer,
            steps=options.steps,
            reference=options.reference,
            out=options.out,
            seed=options.seed,
            show_progress=not options.quiet,
        )
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"captum-ablate: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="captum-ablate", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser(
        "demo",
        help="train a small network and compare attributions on a hidden layer",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    run.add_argument("--data", choices=tuple(RECIPES), default="digits", help="data set")
    run.add_argument("--layer", default="hidden.relu", help="layer whose units are ranked and ablated")
    run.add_argument("--steps", type=int, default=20, help="steps of a curve")
    run.add_argument(
        "--reference",
        choices=("zero", "mean", "resample"),
        default="zero",
        help="what stands in an ablated unit's place",
    )
    run.add_argument("--out", default="captum-ablate-demo", help="folder for pictures and tables")
    run.add_argument("--seed", type=int, default=0, help="seed of the network, the orders and ties")
    run.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser
