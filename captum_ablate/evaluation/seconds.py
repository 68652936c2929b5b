"""Time that each method takes to rank the units."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class Seconds:
    """Wall-clock seconds by name. Time of a block that several names share is split among them in equal parts.

    A block inside another one is charged to its own names only, so that seconds add up to the time that passed.

    Example:
        >>> from captum_ablate.evaluation.seconds import Seconds
        >>> now = iter([0.0, 1.0, 4.0, 10.0])
        >>> seconds = Seconds(clock=lambda: next(now))
        >>> with seconds.of("a", "b"):
        ...     with seconds.of("c"):
        ...         pass
        >>> seconds.by_name
        {'c': 3.0, 'a': 3.5, 'b': 3.5}
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._inside = clock, [0.0]
        self._found: dict[str, float] = defaultdict(float)

    @property
    def by_name(self) -> dict[str, float]:
        """Seconds of each name that was charged."""
        return dict(self._found)

    @contextmanager
    def of(self, *names: str) -> Iterator[None]:
        """Charge the time of a block to ``names``; without any, it is nobody's."""
        self._inside.append(0.0)
        start = self._now()
        try:
            yield
        finally:
            passed = self._now() - start
            own = passed - self._inside.pop()
            self._inside[-1] += passed
            for name in names:
                self._found[name] += own / len(names)

    def _now(self) -> float:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return self._clock()
