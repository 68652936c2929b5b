"""Watch the operators of a forward pass: which storages each of them reads, writes and makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Protocol, TypeVar

from torch import Tensor, UntypedStorage
from torch._C import TensorBase
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")


def memory_of(tensor: Tensor) -> UntypedStorage:
    """Return the memory of ``tensor``, without the method of ``Tensor``, which may be watched."""
    return TensorBase.untyped_storage(tensor)


def storage_of(tensor: Tensor) -> int:
    """Return a number for the memory of ``tensor``, unique while it lives; 0 if it has none of its own."""
    try:
        return int(memory_of(tensor).data_ptr())
    except (NotImplementedError, RuntimeError):
        return 0


class Listener(Protocol):
    """Receive each operator with its arguments."""

    def before(self, func: Any, args: Any, kwargs: Any) -> None:
        """Receive an operator before it runs."""

    def after(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Receive an operator after it has run."""


class Effects(TorchDispatchMode):
    """Report each operator's storages, ``before(reads, writes)`` and ``after(made)``, and itself to a ``listener``."""

    def __init__(
        self,
        before: Callable[[set[int], set[int]], None],
        after: Callable[[set[int]], None],
        listener: Listener | None = None,
    ) -> None:
        super().__init__()
        self._before, self._after, self._listener = before, after, listener

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        is_view, written = signature_of(func)
        writes = {storage_of(t) for value in written_values(written, args, kwargs) for t in tensors_in(value)}
        reads = set() if is_view else {storage_of(t) for t in tensors_in((args, kwargs))}
        self._before(reads, writes)
        if self._listener is not None:
            self._listener.before(func, args, kwargs)
        result = func(*args, **kwargs)
        if self._listener is not None:
            self._listener.after(func, args, kwargs, result)
        self._after(set() if is_view else {storage_of(t) for t in tensors_in(result)} - writes)
        return result


SECRET_VIEWS = frozenset(
    f"aten::{name}" for name in ("unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes", "_unsafe_view", "lift")
)
"""Operators whose results share their argument's memory, although their schemas do not say so."""


@cache
def signature_of(func: Any) -> tuple[bool, tuple[tuple[int, str], ...]]:
    """Return whether an operator only makes views, and the arguments that it writes to, by place and name."""
    if func._schema.name in SECRET_VIEWS:
        return True, ()
    aliases = [(i, a.name, a.alias_info) for i, a in enumerate(func._schema.arguments) if a.alias_info is not None]
    written = tuple((i, name) for i, name, alias in aliases if alias.is_write)
    return bool(aliases) and not written, written


def written_values(written: tuple[tuple[int, str], ...], args: Any, kwargs: Any) -> Iterator[Any]:
    """Yield the values of the arguments that are written to."""
    for place, name in written:
        if place < len(args):
            yield args[place]
        elif name in kwargs:
            yield kwargs[name]


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in an operator's arguments or results, which nest only in lists, tuples and dicts."""
    return leaves_in(value, Tensor)


def leaves_in(value: Any, kind: type[T]) -> list[T]:
    """Return the items of a type in nested lists, tuples and dicts: faster than PyTorch's walk over all containers."""
    if isinstance(value, kind):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list)):
        return []
    found: list[T] = []
    for item in value:
        if isinstance(item, kind):
            found.append(item)
        elif isinstance(item, (tuple, list, dict)):
            found += leaves_in(item, kind)
    return found
