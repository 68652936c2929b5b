"""Notice when Python reads a tensor's numbers without an operator that is watched.

Such reads are ``tolist``, ``numpy``, ``repr``, pickling, memory addresses and functions that read numbers in C++. In
threads that the model starts every read counts, because operators are watched in one thread alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.dlpack
from torch import Tensor

from captum_ablate.inputs.threads import own_pass

METHODS = (
    *("tolist", "numpy", "__dlpack__", "__reduce_ex__", "__repr__", "data_ptr", "untyped_storage", "storage"),
    *("tensor_split", "map_", "map2_", "apply_"),
)
FUNCTIONS = ((torch, "tensor_split"), (torch.utils.dlpack, "to_dlpack"), (torch, "to_dlpack"))
NUMBERS = ("item", "__bool__", "__float__", "__int__", "__index__")
"""Methods that run an operator, which is seen in the thread where operators are watched."""


class _ThisThread(threading.local):
    notice: Callable[[Tensor | None, str], None] | None = None


_this_thread = _ThisThread()
_lock = threading.Lock()
_notices: list[tuple[Callable[[Tensor | None, str], None], Callable[[], bool]]] = []
"""The listeners, each with a function that tells whether a thread works for its forward pass."""


def _noticed(owner: Any, name: str) -> Any:
    original = getattr(owner, name)

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if _this_thread.notice is None:
            for notice, is_own in list(_notices):
                if is_own():
                    notice(None, name)
        elif name in METHODS:
            own = () if name == "tensor_split" else (self,)  # tensor_split reads its indices alone
            for tensor in (*own, *args, *kwargs.values()):
                if isinstance(tensor, Tensor):
                    _this_thread.notice(tensor, name)
        return original(self, *args, **kwargs)

    return method


def _owners() -> list[tuple[Any, str]]:
    methods = [(Tensor, name) for name in (*METHODS, *NUMBERS)]
    return [*methods, *(pair for pair in FUNCTIONS if hasattr(*pair))]


_before: dict[tuple[Any, str], Any] = {}


@contextmanager
def numbers_seen(notice: Callable[[Tensor | None, str], None]) -> Iterator[None]:
    """Call ``notice(tensor, method)`` for every such read in this thread.

    For reads in threads that the model starts, call ``notice(None, method)``. Methods of ``Tensor`` are replaced for
    the time being, because a torch function mode would send attention along another path.
    """
    entry = notice, own_pass()
    with _lock:
        if not _notices:
            for owner, name in _owners():
                _before[owner, name] = vars(owner).get(name)
                setattr(owner, name, _noticed(owner, name))
        _notices.append(entry)
    previous, _this_thread.notice = _this_thread.notice, notice
    try:
        yield
    finally:
        _this_thread.notice = previous
        with _lock:
            _notices.remove(entry)
            if not _notices:
                for (owner, name), method in _before.items():
                    if method is None:
                        delattr(owner, name)
                    else:
                        setattr(owner, name, method)
