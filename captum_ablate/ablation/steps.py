"""The counts of ablated units at which a curve is measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def checked_steps(steps: int | Sequence[int] | None) -> int | tuple[int, ...] | None:
    """Return ``steps`` checked: a number, ascending counts, or None for every count.

    Raises:
        ValueError: if steps are below 1 or not whole.
        TypeError: if steps are no int, sequence or None.
    """
    if steps is None:
        return None
    if isinstance(steps, (int, np.integer)) and not isinstance(steps, bool):
        if steps < 1:
            raise ValueError(f"steps must be at least 1, a sequence of counts, or None for every count; got {steps}")
        return int(steps)
    try:
        counts = [int(count) for count in steps]  # type: ignore[union-attr]  # TypeError is translated below
        whole = all(int(count) == count for count in steps)  # type: ignore[union-attr]
    except TypeError as error:
        raise TypeError(f"steps must be an int, a sequence of counts, or None; got {steps!r}") from error
    if not counts or not whole or min(counts) < 0 or max(counts) == 0:
        raise ValueError(f"steps must be counts of units to ablate, whole numbers from 1 on; got {list(steps)!r}")  # type: ignore[arg-type]
    return tuple(sorted(set(counts) - {0}))


def counts_of(steps: int | tuple[int, ...] | None, units: int) -> tuple[int, ...]:
    """Return the ascending counts of ablated units after step 0. The last one is all ``units``.

    Raises:
        ValueError: if a count exceeds ``units``.
    """
    if steps is None:
        return tuple(range(1, units + 1))
    if isinstance(steps, int):
        return tuple(sorted({round(k * units / steps) for k in range(1, steps + 1)} - {0}))
    if steps[-1] > units:
        raise ValueError(f"steps must not exceed the number of units, {units}; got {steps[-1]}")
    return tuple(sorted({*steps, units}))
