"""Noticing where Python gets at a tensor's numbers by no operator: ``tolist``, ``numpy``, ``__dlpack__``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

METHODS = ("tolist", "numpy", "__dlpack__")


class _ThisThread(threading.local):
    notice: Callable[[Tensor, str], None] | None = None


_this_thread = _ThisThread()
_lock = threading.Lock()
_users = 0


def _noticed(name: str) -> Any:
    original = getattr(Tensor, name)

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if _this_thread.notice is not None:
            _this_thread.notice(self, name)
        return original(self, *args, **kwargs)

    return method


_before: dict[str, Any] = {}


@contextmanager
def numbers_seen(notice: Callable[[Tensor, str], None]) -> Iterator[None]:
    """Call ``notice(tensor, method)`` for every such look in this thread.

    The methods of ``Tensor`` are replaced meanwhile: a torch function mode would send attention along another path.
    """
    global _users
    with _lock:
        if _users == 0:
            for name in METHODS:
                _before[name] = Tensor.__dict__.get(name)
                setattr(Tensor, name, _noticed(name))
        _users += 1
    previous, _this_thread.notice = _this_thread.notice, notice
    try:
        yield
    finally:
        _this_thread.notice = previous
        with _lock:
            _users -= 1
            if _users == 0:
                for name, method in _before.items():
                    if method is None:
                        delattr(Tensor, name)
                    else:
                        setattr(Tensor, name, method)
