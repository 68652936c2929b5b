"""The model and the data that a user names on the command line, or the demo's where none are named."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from captum_ablate.commands import data_file, user_code
from captum_ablate.inputs import samples as demo_data


class ModelAndData(NamedTuple):
    """A model in evaluation mode, data in any form that the library takes, and the model's name for the user."""

    model: nn.Module
    data: Any
    name: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--model``, ``--data``, ``--demo``, ``--seed`` and ``--quiet``."""
    parser.add_argument(
        "--model",
        metavar="MODULE:NAME",
        help="your model: an nn.Module, or a function without arguments that returns one; MODULE is a dotted name "
        "or a file (my_code.py). It is set to evaluation mode",
    )
    parser.add_argument(
        "--data",
        metavar="MODULE:NAME",
        help="your data: a loader of batches (*inputs, labels), a tuple (inputs, labels), or a function without "
        "arguments that returns either; or a file, .npz with arrays inputs and labels, or .pt with (inputs, labels)",
    )
    parser.add_argument(
        "--demo",
        choices=tuple(demo_data.RECIPES),
        default="digits",
        help="without --model and --data: train the demo's network on this data set, use held-out samples",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the demo's network and of resampling")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


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
    if data_file.is_file_name(options.model):
        raise ValueError(
            f"--model {options.model} is a file of weights or a folder, not a model; name a function that builds the "
            "model and loads them, such as my_code:make_model"
        )
    model = user_code.find_object(options.model)
    if isinstance(model, type) or not isinstance(model, nn.Module):
        model = user_code.call(model, f"--model {options.model}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"--model {options.model} must be or return an nn.Module; got {type(model).__name__}")
    if data_file.is_file_name(options.data):
        return ModelAndData(
            model.eval(), data_file.read(options.data, "--data", needs_labels=needs_labels), options.model
        )
    data = user_code.find_object(options.data)
    if callable(data):
        data = user_code.call(data, f"--data {options.data}")
    if needs_labels and isinstance(data, (Tensor, np.ndarray)):
        raise TypeError(
            f"--data {options.data} is a {type(data).__name__} without labels, and this command needs one integer "
            "class for each sample: a tuple (inputs, labels), or a loader of batches (*inputs, labels)"
        )
    return ModelAndData(model.eval(), data, options.model)


def _demo(name: str, seed: int, *, show_progress: bool) -> ModelAndData:
    """Train the demo's network; its data are all held-out samples."""
    split, recipe = demo_data.load(name), demo_data.RECIPES[name]
    images, labels = split.train
    network = demo_data.small_network(images.shape[1], images.shape[2], len(split.class_names), seed=seed)
    demo_data.train(
        network, images, labels, epochs=recipe.epochs, flip=recipe.flip, seed=seed, show_progress=show_progress
    )
    held_out = (torch.cat([split.rank[k], split.evaluate[k]]) for k in (0, 1))
    return ModelAndData(network, tuple(held_out), f"small network trained on {name}")
