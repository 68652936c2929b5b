"""``captum-ablate demo``: train a small network and compare attributions on a hidden layer."""

from __future__ import annotations

import argparse

from captum_ablate import demo
from captum_ablate.commands.subject import Commands
from captum_ablate.demo_data import RECIPES


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "demo",
        help="train a small network and compare attributions on a hidden layer",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", choices=tuple(RECIPES), default="digits", help="data set")
    parser.add_argument("--layer", default="hidden.relu", help="layer whose units are ranked and ablated")
    parser.add_argument("--steps", type=int, default=20, help="steps of a curve")
    parser.add_argument(
        "--reference",
        choices=("zero", "mean", "resample"),
        default="zero",
        help="what stands in an ablated unit's place",
    )
    parser.add_argument("--out", default="captum-ablate-demo", help="folder for pictures and tables")
    parser.add_argument("--seed", type=int, default=0, help="seed of the network, the orders and ties")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    demo.run(
        options.data,
        layer=options.layer,
        steps=options.steps,
        reference=options.reference,
        out=options.out,
        seed=options.seed,
        show_progress=not options.quiet,
    )
