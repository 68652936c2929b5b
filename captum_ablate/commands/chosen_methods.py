"""The methods that ``--methods`` names: those of the catalogue, and attributions or functions of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from captum_ablate.attr.catalogue import CATALOGUE, Target, find
from captum_ablate.commands import user_code

HELP = (
    "names of methods, with commas between them: those that captum-ablate methods lists; default, a good set; all; or "
    "your own, MODULE:NAME, an attribution class made as NAME(model, layer), or a function f(model, layer, data) that "
    "returns one score for each unit"
)

Makers = Mapping[str, Callable[[Target], Any]]
"""By the name of a method, the function that makes it for a layer."""


def chosen(texts: Sequence[str]) -> Makers:
    """Return the methods that the options name, in the order of the options.

    Raises:
        ValueError, TypeError, ImportError, OSError: if there is no such method, or it cannot be imported.
    """
    found: dict[str, Callable[[Target], Any]] = {}
    for text in (part.strip() for option in texts for part in option.split(",")):
        if text in ("all", "default"):
            found |= {entry.name: entry.make for entry in CATALOGUE if text == "all" or entry.is_default}
        elif ":" in text:
            found[_free(_own_name(text), found)] = _own(text)
        elif text:
            entry = find(text)
            found[entry.name] = entry.make
    if not found:
        raise ValueError("--methods names no method; captum-ablate methods lists them")
    return found


def _own_name(text: str) -> str:
    return text.rpartition(":")[2]


def _free(name: str, taken: Makers) -> str:
    """Return ``name``, with a number if another method has it."""
    number, free = 2, name
    while free in taken:
        number, free = number + 1, f"{name} ({number})"
    return free


def _own(text: str) -> Callable[[Target], Any]:
    """Return the maker of a class, or of a function, of the user's."""
    try:
        own = user_code.find_object(text)
    except (ValueError, ImportError, OSError) as error:
        raise type(error)(f"the method {text} cannot be used: {error}") from error
    if inspect.isclass(own):
        return lambda at: _made(own, text, at)
    if not callable(own):
        raise TypeError(f"the method {text} must be a class or a function; got {type(own).__name__}")
    return lambda at: own


def _made(cls: Any, text: str, at: Target) -> Any:
    takes_axis = "unit_dim" in inspect.signature(cls).parameters
    try:
        return cls(at.model, at.layer, **({"unit_dim": at.unit_dim} if takes_axis else {}))
    except Exception as error:
        raise ValueError(
            f"the method {text} cannot be made: {user_code.described(error)}; it is called as "
            f"{cls.__name__}(model, layer)"
        ) from error
