"""The model and the data that a user names on the command line, or the demo's where none are named."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import torch
from torch import nn

from captum_ablate.commands import data_source, images, model_source
from captum_ablate.inputs import samples as demo_data


class ModelAndData(NamedTuple):
    """A model in evaluation mode, data in any form that the library takes, and the model's name for the user."""

    model: nn.Module
    data: Any
    name: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--model``, ``--data``, ``--demo``, ``--seed``, ``--quiet``, and how images are prepared."""
    parser.add_argument("--model", metavar="MODEL", help=model_source.HELP)
    parser.add_argument("--data", metavar="DATA", help=data_source.HELP)
    parser.add_argument(
        "--demo",
        choices=tuple(demo_data.RECIPES),
        default="digits",
        help="without --model and --data: train the demo's network on this data set, use held-out samples",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the demo's network and of resampling")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    images.add_arguments(parser)


def load(options: argparse.Namespace, *, needs_labels: bool = False) -> ModelAndData:
    """Return the model and the data that the options of ``add_arguments`` name, with labels where they are needed.

    Raises:
        ValueError, TypeError, ImportError, OSError: if one of them is missing or unusable; the text names the option.
    """
    if (options.model is None) != (options.data is None):
        given, missing = ("--model", "--data") if options.data is None else ("--data", "--model")
        raise ValueError(f"{given} needs {missing} too; leave both out to use the demo's network")
    if options.model is None:
        return _demo(options.demo, options.seed, show_progress=not options.quiet)
    model = model_source.read(options.model)
    data = data_source.read(options.data, "--data", options, needs_labels=needs_labels, own=model.prepare)
    if isinstance(data, images.Images):
        data = images.in_memory(data, show_progress=not options.quiet)
    return ModelAndData(model.module, data, options.model)


def _demo(name: str, seed: int, *, show_progress: bool) -> ModelAndData:
    """Train the demo's network; its data are all held-out samples."""
    split, recipe = demo_data.load(name), demo_data.RECIPES[name]
    inputs, labels = split.train
    network = demo_data.small_network(inputs.shape[1], inputs.shape[2], len(split.class_names), seed=seed)
    demo_data.train(
        network, inputs, labels, epochs=recipe.epochs, flip=recipe.flip, seed=seed, show_progress=show_progress
    )
    held_out = (torch.cat([split.rank[k], split.evaluate[k]]) for k in (0, 1))
    return ModelAndData(network, tuple(held_out), f"small network trained on {name}")
