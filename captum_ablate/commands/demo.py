"""``captum-ablate demo``: train a small network and compare attributions on one of its hidden layers."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from captum.attr import (
    InternalInfluence,
    LayerActivation,
    LayerConductance,
    LayerDeepLift,
    LayerGradientXActivation,
    LayerIntegratedGradients,
)
from matplotlib.figure import Figure
from torch import Tensor, nn

from captum_ablate import attr
from captum_ablate.commands import Commands, output_folder
from captum_ablate.evaluation.comparison import Comparison
from captum_ablate.evaluation.evaluator import CumulativeAblationEvaluator
from captum_ablate.evaluation.plots import bars_size, leaderboard_bars
from captum_ablate.inputs import samples as demo_data
from captum_ablate.inputs.model import find_layer

FOLDER = "~/captum-ablate-demo"
"""In the home folder, where a user finds it again, whatever the current folder is."""

REPORT = "report.html"


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
    with torch.no_grad():
        units = int(evaluator.axes[0].count(_output_shape(network, evaluator.layers[0], images[:2])))
    comparison = evaluator.compare(
        attributions(network, layer, units, seed),
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


def attributions(network: nn.Module, layer: str, units: int, seed: int) -> dict[str, Any]:
    """Return the methods of the demo by name: ours, Captum's, and a random ranking."""
    module = find_layer(network, layer)
    random: Tensor = torch.rand(units, generator=torch.Generator().manual_seed(seed))
    return {
        "mean activity": attr.LayerMeanActivity(network, module),
        "class selectivity": attr.LayerClassSelectivity(network, module),
        "entropy": attr.LayerEntropy(network, module),
        "mutual information": attr.LayerMutualInformation(network, module),
        "KL selectivity": attr.LayerKLSelectivity(network, module),
        "selectivity x activity": attr.LayerSelectivityActivity(network, module),
        "linear probe": attr.LayerLinearProbe(network, module),
        "unit ablation": attr.LayerUnitAblation(network, module),
        "weight norm": attr.LayerWeightNorm(network, module),
        "activation norm": attr.LayerActivationNorm(network, module),
        "Taylor": attr.LayerTaylor(network, module),
        "activation": LayerActivation(network, module),
        "conductance": LayerConductance(network, module),
        "internal influence": InternalInfluence(network, module),
        "gradient x activation": LayerGradientXActivation(network, module),
        "integrated gradients": LayerIntegratedGradients(network, module),
        "DeepLift": LayerDeepLift(network, module),
        "random ranking": random,
    }


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


def _output_shape(network: nn.Module, layer: nn.Module, images: Tensor) -> torch.Size:
    shapes: list[torch.Size] = []
    handle = layer.register_forward_hook(lambda _module, _args, output: shapes.append(output.shape))
    try:
        network(images)
    finally:
        handle.remove()
    return shapes[0]
