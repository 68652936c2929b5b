"""Progress bars over samples, with the time left. Without a bar, nothing of tqdm is started."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from tqdm.auto import tqdm


class Labelled(Protocol):
    """Anything with one label per sample."""

    @property
    def target(self) -> Any:
        """One entry per sample."""


Item = TypeVar("Item", bound=Labelled)


def with_progress(batches: Iterable[Item], name: str, show: bool) -> Iterable[Item]:
    """Return ``batches``, and if ``show``, with a bar that counts samples.

    It shows the time left if ``batches.samples`` is known. Iterated again, it starts a new bar.
    """
    return _Shown(batches, name) if show else batches


class _Shown(Generic[Item]):
    def __init__(self, batches: Iterable[Item], name: str) -> None:
        self._batches, self._name = batches, name

    def __iter__(self) -> Iterator[Item]:
        with tqdm(desc=self._name, total=getattr(self._batches, "samples", None), unit="sample") as bar:
            for batch in self._batches:
                yield batch
                bar.update(len(batch.target))


@contextmanager
def ticking(name: str, show: bool, samples: int | None = None) -> Iterator[Callable[..., Any]]:
    """Yield a function to call with the number of samples done since its last call, whole or in parts of one.

    ``samples`` is their number in all, if it is known.
    """
    if not show:
        yield lambda done=1: None
        return
    done_so_far = 0.0
    with tqdm(desc=name, total=samples, unit="sample") as bar:

        def tick(done: float = 1) -> None:
            nonlocal done_so_far
            done_so_far += done
            bar.update(int(done_so_far + 1e-6) - bar.n)  # whole samples

        yield tick
