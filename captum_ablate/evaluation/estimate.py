"""Cost of an evaluation, told beforehand from one batch: seconds and peak memory."""

from __future__ import annotations

import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from captum_ablate.inputs.batches import Batches
from captum_ablate.inputs.wording import MOST_NAMES, counted, visible

FEW, MORE = 6, 24
"""Masks of the two runs on one batch: their difference is the time of a mask, the rest that of a batch."""


@dataclass(frozen=True)
class Estimate:
    """Expected ``seconds`` in all, of which ``ranking_seconds`` for the ranking, and ``peak_bytes`` beyond the present.

    ``batches`` of evaluation data, each under ``masks`` distinct masks. ``method_seconds`` are those of each method's
    ranking; methods that share a pass share its time.
    """

    seconds: float
    ranking_seconds: float
    peak_bytes: int
    batches: int
    masks: int
    method_seconds: Mapping[str, float]

    @property
    def longest(self) -> str | None:
        """Name of the method whose ranking takes over half of the time, if there is one."""
        return next((name for name, own in self.method_seconds.items() if own > self.seconds / 2), None)

    def __str__(self) -> str:
        effort = f"{counted(self.batches, 'batch', 'batches')} under {counted(self.masks, 'mask')}"
        text = (
            f"about {duration(self.seconds)} (ranking {duration(self.ranking_seconds)}; {effort}), "
            f"{self.peak_bytes / 2**20:,.0f} MiB of memory at the peak beyond what is in use"
        )
        if self.longest is not None:
            text += f"; over half of the time is the ranking by {visible(self.longest)}"
        return text

    def by_method(self) -> str:
        """Return the methods that take longest to rank, with their seconds, in a line."""
        most = sorted(((n, own) for n, own in self.method_seconds.items() if own > 0), key=lambda one: -one[1])
        shown = [f"{visible(name)} {duration(own)}" for name, own in most[:MOST_NAMES]]
        rest = sum(own for _, own in most[MOST_NAMES:])
        return ", ".join([*shown, *([f"all others {duration(rest)}"] if len(most) > MOST_NAMES else [])])


def extrapolated(run: Callable[[int], object], masks: int, batches: int) -> tuple[float, int]:
    """Return the seconds for all batches and the peak in bytes, from ``run(k)``: one batch under k masks."""
    run(min(2, masks))  # the first run of its kind finds nothing prepared
    few, more = min(FEW, masks), min(MORE, masks)
    with peak_memory() as peak:
        first, second = _seconds(lambda: run(few)), _seconds(lambda: run(more))
    if masks <= MORE:
        return batches * second, peak()
    each = max(0.0, second - first) / (more - few)
    return batches * (second + each * (masks - more)), peak()


def length_of(batches: Batches) -> int:
    """Return the number of batches; they are walked through once where they do not tell it."""
    try:
        return len(batches)
    except TypeError:
        return sum(1 for _ in batches)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - start


@contextmanager
def peak_memory() -> Iterator[Callable[[], int]]:
    """Yield a function that tells, afterwards, by how many bytes memory rose at most: the GPU's where it is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        before, on_gpu = torch.cuda.memory_allocated(), True
    else:
        before, on_gpu = _resident(), False
    highest, done = [before], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            highest[0] = max(highest[0], _resident())

    watcher = threading.Thread(target=watch, daemon=True)
    if not on_gpu:
        watcher.start()
    try:
        yield lambda: max(0, (torch.cuda.max_memory_allocated() if on_gpu else max(highest[0], _resident())) - before)
    finally:
        done.set()
        if not on_gpu:
            watcher.join()


def _resident() -> int:
    """Return the resident memory of this process, in bytes; where no /proc tells, its peak so far."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def duration(seconds: float) -> str:
    """Return seconds in words, to two digits: "7.3 s", "12 min", "1.6 h"."""
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 90 else f"{hours:.1f} h"
