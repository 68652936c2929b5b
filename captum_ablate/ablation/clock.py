"""Time a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

T = TypeVar("T")


def timed(run: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Return the seconds that ``run`` took, and its result.

    On a CPU these are processor seconds, which other jobs do not disturb; on a GPU wall-clock seconds.
    """
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    _wait(device)
    start = clock()
    result = run()
    _wait(device)
    return clock() - start, result


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
