"""What a command looks at: the user's own model and data, named as ``module:function``, or the demo's."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn

from captum_ablate.commands import files
from captum_ablate.inputs import samples as demo_data

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


OURS = Path(__file__).parents[1]
MODEL_CALLS = Path(nn.modules.module.__file__)
LOADERS = Path(torch.utils.data.__file__).parent
"""Where a call of a model, and where the reading of data, passes through."""


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
        "arguments that returns either; or a file, .npz with arrays inputs and labels, or .pt with (inputs, labels)",
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
    if files.is_file_name(options.model):
        raise ValueError(
            f"--model {options.model} is a file of weights or a folder, and no model; name a function that builds the "
            "model and loads them, such as my_code:make_model"
        )
    model = named(options.model)
    if isinstance(model, type) or not isinstance(model, nn.Module):
        model = called(model, f"--model {options.model}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"--model {options.model} must give an nn.Module; got {type(model).__name__}")
    if files.is_file_name(options.data):
        return Subject(model.eval(), files.read(options.data, "--data"), options.model)
    data = named(options.data)
    if callable(data):
        data = called(data, f"--data {options.data}")
    return Subject(model.eval(), data, options.model)


@contextmanager
def running(options: argparse.Namespace) -> Iterator[None]:
    """Turn what the user's own model or loader raises into a ``ValueError`` that names it; our errors pass."""
    try:
        yield
    except Exception as error:
        frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        if options.model is None or Path(frames[-1]).is_relative_to(OURS):
            raise
        through = {Path(frame) for frame in frames}
        if MODEL_CALLS in through:
            what = f"the model {options.model} cannot run on the data {options.data}"
        elif any(frame.is_relative_to(LOADERS) for frame in through):
            what = f"the data {options.data} cannot be read"
        else:
            raise
        raise ValueError(f"{what}: {_said(error)}") from error


def out_folder(options: argparse.Namespace) -> Path:
    """Return the folder that ``--out`` names, made if it is not there."""
    folder = Path(options.out)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--out must name a folder; {options.out} is a file")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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
    if file.suffix == ".py" and not file.is_file():
        raise FileNotFoundError(f"there is no file {name}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return _executed(file.resolve()) if file.suffix == ".py" else importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ImportError(f"{name} needs a module that is not there: {_said(error)}") from error
        raise ImportError(
            f"there is no module {error.name!r}, neither installed nor as {error.name}.py in {here}"
        ) from error
    except Exception as error:
        raise ImportError(f"{name} cannot be imported: {_said(error)}") from error


@cache
def _executed(file: Path) -> Any:
    """Return the module of ``file``, executed once even if several options name it."""
    specification = importlib.util.spec_from_file_location(file.stem, file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules.setdefault(file.stem, module)  # pickle and worker processes look a module up by its name
    specification.loader.exec_module(module)
    return module


def called(function: Any, name: str) -> Any:
    """Return what the user's ``function`` returns, called without arguments."""
    if not callable(function):
        raise TypeError(f"{name} must be a model, data, or a function that returns one; got {type(function).__name__}")
    try:
        return function()
    except Exception as error:
        raise ValueError(f"{name} failed with {_said(error)}; it is called without arguments") from error


def _said(error: Exception) -> str:
    """Return the type and the text of ``error``, and where in the user's code it arose."""
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return said  # which tells file and line
    installed = (str(OURS), str(Path(torch.__file__).parent), "<frozen", importlib.__file__)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(installed)]
    return said + (f" ({own[-1].filename}, line {own[-1].lineno})" if own else "")


def _demo(name: str, seed: int, *, show_progress: bool) -> Subject:
    split, recipe = demo_data.load(name), demo_data.RECIPES[name]
    images, labels = split.train
    network = demo_data.small_network(images.shape[1], images.shape[2], len(split.class_names), seed=seed)
    demo_data.train(
        network, images, labels, epochs=recipe.epochs, flip=recipe.flip, seed=seed, show_progress=show_progress
    )
    held_out = (torch.cat([split.rank[k], split.evaluate[k]]) for k in (0, 1))
    return Subject(network, tuple(held_out), f"small network trained on {name}")
