"""What a command looks at: the user's own model and data, named as ``module:function``, or the demo's."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn

from captum_ablate import demo_data

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class Subject(NamedTuple):
    """A model in evaluation mode, labelled data in any form that the library takes, and what to call them."""

    model: nn.Module
    data: Any
    name: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--model``, ``--data``, ``--demo``, ``--seed`` and ``--quiet``."""
    parser.add_argument(
        "--model",
        metavar="MODULE:NAME",
        help="your model: an nn.Module, or a function without arguments that returns one; MODULE is a dotted name "
        "or a file (my_code.py). It is put into evaluation mode",
    )
    parser.add_argument(
        "--data",
        metavar="MODULE:NAME",
        help="your data: a loader of batches (*inputs, labels), a tuple (inputs, labels), or a function without "
        "arguments that returns either",
    )
    parser.add_argument(
        "--demo",
        choices=tuple(demo_data.RECIPES),
        default="digits",
        help="without --model and --data: train the demo's network on these images, look at it on held-out ones",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the demo's network and of resampling")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def load(options: argparse.Namespace) -> Subject:
    """Return the model and data that ``add_arguments``'s options name."""
    if (options.model is None) != (options.data is None):
        given, missing = ("--model", "--data") if options.data is None else ("--data", "--model")
        raise ValueError(f"{given} needs {missing} beside it; leave both out to look at the demo's network")
    if options.model is None:
        return _demo(options.demo, options.seed, show_progress=not options.quiet)
    model = named(options.model)
    if isinstance(model, type) or not isinstance(model, nn.Module):
        model = _called(model, options.model)
    if not isinstance(model, nn.Module):
        raise TypeError(f"--model {options.model} must give an nn.Module; got {type(model).__name__}")
    data = named(options.data)
    if callable(data):
        data = _called(data, options.data)
    return Subject(model.eval(), data, options.model)


def named(name: str) -> Any:
    """Return the object that ``package.module:name`` or ``path/file.py:name`` means.

    Modules are looked for in the current folder too, as ``python -m`` does.
    """
    module_name, colon, attribute = name.rpartition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(f"name an object as module:name, such as my_code:make_model; got {name!r}")
    found = _module(module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [n for n in vars(found) if not n.startswith("_")]
            raise ValueError(f"{module_name} has no {attribute!r}; it has {', '.join(public[:12])}")
        found = getattr(found, part)
    return found


def _module(name: str) -> Any:
    file = Path(name)
    if file.suffix == ".py":
        if not file.is_file():
            raise FileNotFoundError(f"there is no file {name}")
        specification = importlib.util.spec_from_file_location(file.stem, file)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules.setdefault(file.stem, module)  # pickle and worker processes look a module up by its name
        specification.loader.exec_module(module)
        return module
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return importlib.import_module(name)


def _called(function: Any, name: str) -> Any:
    if not callable(function):
        raise TypeError(f"{name} must be a model, data, or a function that returns one; got {type(function).__name__}")
    try:
        return function()
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise ValueError(
            f"{name} failed with {type(error).__name__}: {error} ({where.filename}, line {where.lineno}); it is called "
            "without arguments"
        ) from error


def _demo(name: str, seed: int, *, show_progress: bool) -> Subject:
    split, recipe = demo_data.load(name), demo_data.RECIPES[name]
    images, labels = split.train
    network = demo_data.small_network(images.shape[1], images.shape[2], len(split.class_names), seed=seed)
    demo_data.train(
        network, images, labels, epochs=recipe.epochs, flip=recipe.flip, seed=seed, show_progress=show_progress
    )
    held_out = (torch.cat([split.rank[k], split.evaluate[k]]) for k in (0, 1))
    return Subject(network, tuple(held_out), f"small network trained on {name}")
