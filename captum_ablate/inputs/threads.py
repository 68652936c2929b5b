"""Keep threads apart: one call at a time for each model, and hooks that hear the passes of their own call alone."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import nn

_free = threading.Condition()
_holder: dict[int, tuple[int, int]] = {}
"""By ``id`` of a module in use: the thread that uses it, and how many nested calls do. They keep the module alive."""
_waiting: dict[int, set[int]] = {}
"""By thread: the modules that it waits for."""


class _ThisThread(threading.local):
    modules: tuple[nn.Module, ...] = ()
    guards = False


_here = _ThisThread()


@contextmanager
def one_at_a_time(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Wait until no other thread uses any of ``modules``, and use them all; calls of one thread may nest.

    Calls on different models do not wait for each other.

    Raises:
        RuntimeError: if two threads would wait for each other for ever.
    """
    modules = tuple(modules)
    keys, me = {id(m) for m in modules}, threading.get_ident()
    with _free:
        try:
            while _blockers(keys, me):
                _refuse_deadlock(keys, me)
                _waiting[me] = keys
                _free.wait()
        finally:
            _waiting.pop(me, None)
        for key in keys:
            _holder[key] = me, _holder.get(key, (me, 0))[1] + 1
    previous, _here.modules = _here.modules, (*_here.modules, *modules)
    try:
        yield
    finally:
        _here.modules = previous
        with _free:
            for key in keys:
                thread, depth = _holder.pop(key)
                if depth > 1:
                    _holder[key] = thread, depth - 1
            _free.notify_all()


def _blockers(keys: set[int], me: int) -> set[int]:
    """Return the other threads that use some of the modules."""
    return {thread for key in keys if (thread := _holder.get(key, (me, 0))[0]) != me}


def _refuse_deadlock(keys: set[int], me: int) -> None:
    seen, new = set[int](), _blockers(keys, me)
    while new:
        seen |= new
        new = {other for thread in new for other in _blockers(_waiting.get(thread, set()), thread)} - seen
    if me in seen:
        raise RuntimeError(
            "two threads use parts of one model and wait for each other; pass the same forward_func, an nn.Module, to "
            "the evaluator and to all attributions, or let one thread work at a time"
        )


def _forget() -> None:
    """Start anew in a forked process, where no other thread lives on."""
    global _free
    _free = threading.Condition()
    me = threading.get_ident()
    for key in [key for key, (thread, _) in _holder.items() if thread != me]:
        del _holder[key]
    _waiting.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


drawing = threading.RLock()
"""Held by what draws from the process's random states under a seed of its own: other threads must not draw between."""


def own_pass() -> Callable[[], bool]:
    """Return a function that tells, inside a hook, whether this thread's forward pass runs there.

    True in this thread, and in threads that the model starts for its work. False where another thread calls the model,
    or worked before: such a pass is the user's own, and no hook of ours may hear or change it.
    """
    own, modules = threading.get_ident(), _here.modules
    before = frozenset(thread.ident for thread in threading.enumerate())

    def is_own() -> bool:
        me = threading.get_ident()
        if me == own:
            return True
        return me not in before and not _is_at_work(me) and not _calls_a_root(modules)

    return is_own


def _is_at_work(thread: int) -> bool:
    """Tell whether a thread is in a call of the library."""
    with _free:
        return any(holder == thread for holder, _ in _holder.values())


def _calls_a_root(modules: tuple[nn.Module, ...]) -> bool:
    """Tell whether a whole model is being called on this thread's stack: each call of ours has its model first."""
    frame = sys._getframe(2)
    while frame is not None:
        names = frame.f_code.co_varnames
        if names and names[0] in ("self", "module") and modules and frame.f_locals.get(names[0]) is modules[0]:
            return True
        frame = frame.f_back  # type: ignore[assignment]  # None ends the stack
    return False


_patches = threading.Lock()
_guarded: list[Any] = []
_REGISTER = ("register_forward_hook", "register_forward_pre_hook")


@contextmanager
def hooks_of_own_pass() -> Iterator[None]:
    """Let the forward hooks that this thread registers, Captum's for example, act in its own passes alone."""
    with _patches:
        if not _guarded:
            _before.update({name: getattr(nn.Module, name) for name in _REGISTER})
            for name in _REGISTER:
                setattr(nn.Module, name, _guarding(_before[name]))
        _guarded.append(None)
    previous, _here.guards = _here.guards, True
    try:
        yield
    finally:
        _here.guards = previous
        with _patches:
            _guarded.pop()
            if not _guarded:
                for name in _REGISTER:
                    setattr(nn.Module, name, _before[name])


_before: dict[str, Callable[..., Any]] = {}


def _guarding(register: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(register)
    def method(module: nn.Module, hook: Callable[..., Any], **options: Any) -> Any:
        return register(module, of_own_pass(hook) if _here.guards else hook, **options)

    return method


def of_own_pass(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``hook`` that does nothing in forward passes of other threads."""
    is_own = own_pass()

    def guarded(*args: Any) -> Any:
        return hook(*args) if is_own() else None

    return guarded
