"""Intercept every call that an ``nn.Module`` receives in this thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from torch import nn


class Watcher(Protocol):
    """Stand in for ``nn.Module.__call__``; ``original`` is the call itself."""

    def call(self, original: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Return the result of the call."""


class _ThisThread(threading.local):
    watcher: Watcher | None = None


_this_thread = _ThisThread()
_lock = threading.Lock()
_users = 0
_original: Callable[..., Any] = nn.Module.__call__


def _call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    watcher = _this_thread.watcher
    if watcher is None:
        return _original(module, *args, **kwargs)
    return watcher.call(_original, module, args, kwargs)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Send the module calls of this thread to ``watcher``; other threads are not affected."""
    global _users, _original
    with _lock:
        if _users == 0:
            _original = nn.Module.__call__
            nn.Module.__call__ = _call  # type: ignore[method-assign]  # calls look it up on the type
        _users += 1
    previous, _this_thread.watcher = _this_thread.watcher, watcher
    try:
        yield
    finally:
        _this_thread.watcher = previous
        with _lock:
            _users -= 1
            if _users == 0:
                nn.Module.__call__ = _original  # type: ignore[method-assign]
