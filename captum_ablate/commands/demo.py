"""``captum-ablate demo``: train a small network and compare attributions on one of its hidden layers."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch import nn

from captum_ablate.attr.catalogue import CATALOGUE, Target
from captum_ablate.commands import Commands, output_folder
from captum_ablate.evaluation.comparison import Comparison
from captum_ablate.evaluation.evaluator import CumulativeAblationEvaluator
from captum_ablate.evaluation.plots import bars_size, leaderboard_bars
from captum_ablate.inputs import samples as demo_data
from captum_ablate.inputs.model import find_layer

FOLDER = "~/captum-ablate-demo"
"""In the home folder, where a user finds it again, whatever the current folder is."""

REPORT = "report.html"

SLOW = ("Shapley value", "feature ablation", "DeepLiftSHAP", "GradientSHAP", "LRP")
METHODS = tuple(entry.name for entry in CATALOGUE if entry.name not in SLOW)
"""Those that take seconds, and need no baselines. LRP has no rule for a ReLU."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "demo",
        help="train a small network and compare attributions on a hidden layer",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", choices=tuple(demo_data.RECIPES), default="digits", help="data set")
    parser.add_argument("--layer", default="hidden.relu", help="layer whose units are ranked and ablated")
    parser.add_argument("--steps", type=int, default=20, help="steps of a curve")
    parser.add_argument(
        "--reference",
        choices=("zero", "mean", "resample"),
        default="zero",
        help="value that replaces an ablated unit",
    )
    parser.add_argument("--out", default=FOLDER, help="folder for pictures and tables")
    parser.add_argument("--seed", type=int, default=0, help="seed of the network, the orders and ties")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    run(
        options.data,
        layer=options.layer,
        steps=options.steps,
        reference=options.reference,
        out=options.out,
        seed=options.seed,
        show_progress=not options.quiet,
    )


def run(
    data: str = "digits",
    *,
    layer: str = "hidden.relu",
    steps: int = 20,
    reference: str = "zero",
    out: str | Path = FOLDER,
    seed: int = 0,
    show_progress: bool = True,
) -> Comparison:
    """Train a network, compare attributions, write pictures and tables to the folder ``out``.

    Units are ranked on half of the held-out images, and the rankings evaluated on the other half.
    """
    start = time.perf_counter()
    split, recipe = demo_data.load(data), demo_data.RECIPES[data]
    images = split.train.images
    network = demo_data.small_network(images.shape[1], images.shape[2], len(split.class_names), seed=seed)
    evaluator = CumulativeAblationEvaluator(  # before the training, so that a wrong option is found at once
        network, layer, reference=reference, steps=steps, seed=seed
    )
    folder = output_folder.make(out)
    print(f"{data}: {len(images):,} images to train on, {len(split.rank.labels):,} to rank, "
          f"{len(split.evaluate.labels):,} to evaluate")  # fmt: skip
    seconds = demo_data.train(
        network,
        images,
        split.train.labels,
        epochs=recipe.epochs,
        flip=recipe.flip,
        seed=seed,
        show_progress=show_progress,
    )
    comparison = evaluator.compare(
        attributions(network, layer, seed),
        tuple(split.evaluate),
        ranking_data=tuple(split.rank),
        show_progress=show_progress,
    )
    files = write(comparison, folder)
    print(f"\n{comparison}\n")
    print(f"training {seconds:.0f} s, everything {time.perf_counter() - start:.0f} s")
    output_folder.announce(folder, files)
    print(f"open {(folder.resolve() / REPORT).as_uri()} in a browser")
    return comparison


def attributions(network: nn.Module, layer: str, seed: int) -> dict[str, Any]:
    """Return the methods of the demo by name: ours, Captum's, and a random ranking."""
    target = Target(network, find_layer(network, layer), seed=seed)
    return {entry.name: entry.make(target) for entry in CATALOGUE if entry.name in METHODS}


def write(comparison: Comparison, folder: Path) -> list[str]:
    """Write curves, leaderboard, report and the comparison itself into ``folder``; return the names of the files."""
    comparison.save(folder)
    comparison.leaderboard.to_csv(folder / "leaderboard.csv", index=False)
    comparison.report(folder / REPORT)
    comparison.picture().savefig(folder / "curves.png", dpi=150)
    gaps = Figure(figsize=bars_size(list(comparison)), layout="constrained")
    leaderboard_bars(comparison.leaderboard, gaps.subplots())
    gaps.savefig(folder / "gaps.png", dpi=150)
    return ["curves.png", "gaps.png", "leaderboard.csv", REPORT, "comparison.json", "comparison.npz"]
