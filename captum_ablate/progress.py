"""Progress bars, where they are asked for: without, nothing of tqdm is started."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm.auto import tqdm

Item = TypeVar("Item")


def over(items: Iterable[Item], name: str, show: bool) -> Iterator[Item]:
    """Yield ``items``, with a bar that counts batches."""
    if not show:
        return iter(items)
    try:
        total = len(items)  # type: ignore[arg-type]  # not every iterable knows
    except TypeError:
        total = None
    return iter(tqdm(items, total=total, desc=name, unit="batch"))


@contextmanager
def ticking(name: str, show: bool) -> Iterator[Callable[[], Any]]:
    """Give a function to call after each forward pass, with a bar that counts them."""
    if not show:
        yield lambda: None
        return
    with tqdm(desc=name, unit="pass") as bar:
        yield bar.update
