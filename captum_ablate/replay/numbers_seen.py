"""Noticing where Python gets at a tensor's numbers by no operator that is watched.

That is ``tolist``, ``numpy``, pickling, an address in memory, and in other threads anything that gives a number:
operators are watched in one thread alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

METHODS = ("tolist", "numpy", "__dlpack__", "__reduce_ex__", "data_ptr", "untyped_storage", "storage")
NUMBERS = ("item", "__bool__", "__float__", "__int__", "__index__")
"""What runs an operator, which is seen where operators are watched."""


class _ThisThread(threading.local):
    notice: Callable[[Tensor | None, str], None] | None = None


_this_thread = _ThisThread()
_lock = threading.Lock()
_notices: list[tuple[Callable[[Tensor | None, str], None], frozenset[int | None]]] = []
"""Who listens, and the threads that ran before: they do not work for the forward pass that is watched."""


def _noticed(name: str) -> Any:
    original = getattr(Tensor, name)

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if _this_thread.notice is None:
            for notice, before in list(_notices):
                if threading.get_ident() not in before:
                    notice(None, name)
        elif name in METHODS:
            _this_thread.notice(self, name)
        return original(self, *args, **kwargs)

    return method


_before: dict[str, Any] = {}


@contextmanager
def numbers_seen(notice: Callable[[Tensor | None, str], None]) -> Iterator[None]:
    """Call ``notice(tensor, method)`` for every such look in this thread, ``notice(None, method)`` for those of threads
    that started since.

    The methods of ``Tensor`` are replaced meanwhile: a torch function mode would send attention along another path.
    """
    entry = notice, frozenset(thread.ident for thread in threading.enumerate())
    with _lock:
        if not _notices:
            for name in (*METHODS, *NUMBERS):
                _before[name] = Tensor.__dict__.get(name)
                setattr(Tensor, name, _noticed(name))
        _notices.append(entry)
    previous, _this_thread.notice = _this_thread.notice, notice
    try:
        yield
    finally:
        _this_thread.notice = previous
        with _lock:
            _notices.remove(entry)
            if not _notices:
                for name, method in _before.items():
                    if method is None:
                        delattr(Tensor, name)
                    else:
                        setattr(Tensor, name, method)
