"""The user's own code: import it by name, call it, and name it in the errors that it raises."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import nn

OURS = Path(__file__).parents[1]
MODEL_CALLS = Path(nn.modules.module.__file__)
LOADERS = Path(torch.utils.data.__file__).parent
"""Files in the traceback of an error that a model, or a data loader, raises."""


def find_object(name: str) -> Any:
    """Return the object that ``package.module:name`` or ``path/file.py:name`` means.

    Modules are searched in the current folder too, as ``python -m`` does.

    Raises:
        ValueError: if ``name`` has no such form, or the module no such object.
        ImportError: if the module is missing or cannot be imported.
        FileNotFoundError: if the file is missing.
    """
    module_name, colon, attribute = name.rpartition(":")
    if not colon or not module_name or not attribute:
        raise ValueError(f"name an object as module:name, such as my_code:make_model; got {name!r}")
    found = _import_module(module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [n for n in vars(found) if not n.startswith("_")]
            near = get_close_matches(part, public, n=3, cutoff=0.6)
            hint = f"nearest: {', '.join(near)}" if near else f"it has {', '.join(public[:12])}"
            raise ValueError(f"{module_name} has no {attribute!r}; {hint}")
        found = getattr(found, part)
    return found


def digest(name: str) -> str:
    """Return a digest of the file that ``module:name`` is written in, so that a changed one is noticed."""
    module = inspect.getmodule(find_object(name))
    file = getattr(module, "__file__", None)
    return "" if file is None else blake2b(Path(file).read_bytes(), digest_size=8).hexdigest()


def call(function: Any, name: str) -> Any:
    """Return the result of the user's ``function``, called without arguments; errors name it ``name``."""
    if not callable(function):
        raise TypeError(f"{name} must be a model, data, or a function that returns one; got {type(function).__name__}")
    try:
        return function()
    except Exception as error:
        raise ValueError(f"{name} failed with {described(error)}; it is called without arguments") from error


@contextmanager
def naming_errors(options: argparse.Namespace) -> Iterator[None]:
    """Turn an error of the user's model or loader into a ``ValueError`` that names it; let our own errors pass."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__
        raised = cause if type(cause) is type(error) else error  # a hint of ours may have been added to the model's own
        frames = [frame.filename for frame in traceback.extract_tb(raised.__traceback__)]
        if options.model is None or Path(frames[-1]).is_relative_to(OURS):
            raise
        files = {Path(frame) for frame in frames}
        if MODEL_CALLS in files:
            what = f"the model {options.model} cannot run on the data {options.data}"
        elif any(file.is_relative_to(LOADERS) for file in files):
            what = f"the data {options.data} cannot be read"
        else:
            raise
        raise ValueError(f"{what}: {described(error)}") from error


def _import_module(name: str) -> Any:
    file = Path(name)
    if file.suffix == ".py" and not file.is_file():
        raise FileNotFoundError(f"there is no file {name}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return _import_file(file.resolve()) if file.suffix == ".py" else importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ImportError(f"{name} needs a module that is not installed: {described(error)}") from error
        raise ImportError(
            f"there is no module {error.name!r}, neither installed nor as {error.name}.py in {here}"
        ) from error
    except Exception as error:
        raise ImportError(f"{name} cannot be imported: {described(error)}") from error


@cache
def _import_file(file: Path) -> Any:
    """Return the module of ``file``, executed once even if several options name it."""
    specification = importlib.util.spec_from_file_location(file.stem, file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules.setdefault(file.stem, module)  # pickle and worker processes look a module up by its name
    specification.loader.exec_module(module)
    return module


def described(error: Exception) -> str:
    """Return the type and the text of ``error``, and the line of the user's code that raised it."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return text  # it already names file and line
    installed = (str(OURS), str(Path(torch.__file__).parent), "<frozen", importlib.__file__)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(installed)]
    return text + (f" ({own[-1].filename}, line {own[-1].lineno})" if own else "")
