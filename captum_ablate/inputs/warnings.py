"""Warnings that point at the user's own line, however deep in the package they arise."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_ignoring: list[type[Warning]] = []
_caught = warnings.catch_warnings()


def warn(message: str) -> None:
    """Issue a ``UserWarning`` at the nearest calling line outside this package."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "captum_ablate":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


@contextmanager
def ignoring(category: type[Warning]) -> Iterator[None]:
    """Ignore a kind of warnings; filters belong to the process, so the last of several threads gives them back."""
    global _caught
    with _lock:
        if not _ignoring:
            _caught = warnings.catch_warnings()
            _caught.__enter__()
        warnings.simplefilter("ignore", category)
        _ignoring.append(category)
    try:
        yield
    finally:
        with _lock:
            _ignoring.remove(category)
            if not _ignoring:
                _caught.__exit__(None, None, None)
