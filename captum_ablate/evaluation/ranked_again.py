"""Ablate the orders of the resampled rankings, on few samples and steps: enough to tell how far they move a gap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_ablate.ablation import Engine, Measured, Plan, Reference, Site
from captum_ablate.ablation.metrics import Metric
from captum_ablate.evaluation.areas import curves_of, deficit_areas
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.batches import Batches
from captum_ablate.inputs.model import ForwardFunc
from captum_ablate.inputs.progress import ticking
from captum_ablate.inputs.resamples import Keys, uniform
from captum_ablate.inputs.values import whole_number
from captum_ablate.inputs.warnings import ignoring

SHARE = 0.25
"""Share of the work of a comparison that the resampled orders may add: orders times steps times samples."""

FEWEST, MOST = 24, 100
"""Samples that they are ablated on at least, as far as there are, and at most."""

STEPS = 3
"""Steps of their curves, where a comparison has as many or more."""


@dataclass(frozen=True)
class RankedAgain:
    """What each sample adds to the areas under the order of each resample, ``[resamples, m]``, in both directions."""

    areas: Tensor
    ascending_areas: Tensor


NEVER = RankedAgain(torch.zeros(0, 0, dtype=torch.float64), torch.zeros(0, 0, dtype=torch.float64))


def checked_resamples(number: Any, until: float | None) -> int:
    """Return the number of resamples, checked.

    Raises:
        ValueError: if it is no whole number from 0 on, or 1, or samples are drawn ``until`` a precision.
    """
    resamples = whole_number(number, "ranking_resamples", 0)
    if resamples == 1:
        raise ValueError("ranking_resamples must be 0, or 2 or more, because their spread is what counts; got 1")
    if until is not None and resamples:
        raise ValueError(
            f"until draws samples, and no number of them makes the noise of a ranking smaller; pass "
            f"ranking_resamples=0 (got {resamples}), or leave out until"
        )
    return resamples


@dataclass(frozen=True)
class Schedule:
    """How many samples to ablate the resampled orders on, and at which ``counts`` of units."""

    samples: int
    counts: tuple[int, ...]

    @classmethod
    def of(cls, plan: Plan, orders: int, n: int) -> Schedule:
        """Return the schedule of so many resampled ``orders`` beside a ``plan`` on ``n`` samples: the plan decides."""
        counts = plan.chains[0].counts
        steps = min(STEPS, len(counts))
        few = tuple(counts[round(k * len(counts) / steps) - 1] for k in range(1, steps + 1))
        work = SHARE * len(plan.chains) / 2 * len(counts) * n
        return cls(min(n, MOST, max(FEWEST, int(work / (orders * steps)))), few)


class EvaluatedSamples:
    """The evaluation data, whose samples draw lots by their bytes on the way, so that ``few`` can be chosen later."""

    def __init__(self, batches: Batches, seed: int) -> None:
        self._batches, self._seed = batches, seed
        self._lots: list[NDArray[np.float64]] = []

    def __iter__(self) -> Iterator[Batch]:
        self._lots = []
        for batch, lot in self.with_lots():
            self._lots.append(lot)
            yield batch

    def __len__(self) -> int:
        """Return the number of samples of the last pass."""
        return sum(map(len, self._lots))

    def few(self, samples: int, *, whole: bool = False) -> Chosen:
        """Return so many samples of the last pass, those with the lowest lots; if ``whole``, in their batches."""
        return Chosen(self, float(np.sort(np.concatenate(self._lots))[samples - 1]), whole)

    def with_lots(self) -> Iterator[tuple[Batch, NDArray[np.float64]]]:
        """Yield each batch with the lots of its samples, ``[n]`` between 0 and 1."""
        keys = Keys()
        for batch in self._batches:
            yield (
                batch,
                uniform(keys.of(batch, self._batches.digests(batch)), f"chosen {self._seed} ", 2) @ [1.0, 2.0**-32],
            )


class Chosen:
    """A few samples of the evaluation data; ``whole`` batches of them also where samples cannot be cut apart."""

    def __init__(self, samples: EvaluatedSamples, limit: float, whole: bool) -> None:
        self._samples, self._limit, self._whole = samples, limit, whole
        self.columns = torch.zeros(0, dtype=torch.int64)
        """Which samples of the last pass were chosen, among those that it yielded."""

    def __iter__(self) -> Iterator[Batch]:
        columns, start = [], 0
        for batch, lot in self._samples.with_lots():
            rows = torch.from_numpy(np.flatnonzero(lot <= self._limit))
            if not len(rows):
                continue
            is_whole = self._whole or batch.why_whole() is not None
            own = batch if is_whole else batch.take(rows)
            columns.append(start + (rows if is_whole else torch.arange(len(rows))))
            start += len(own.target)
            yield own
        self.columns = torch.cat(columns)


def ablate_again(
    forward_func: ForwardFunc,
    sites: Sequence[Site],
    references: Sequence[Reference],
    metric: Metric,
    orders: Mapping[str, Sequence[Tensor]],
    plan: Plan,
    samples: EvaluatedSamples,
    show_progress: bool,
) -> dict[str, RankedAgain]:
    """Return by method what the orders ``[live]`` of its resamples take from each of a few samples.

    All are ablated on the same samples, so that methods and resamples are paired. Equal masks run once. ``plan`` is
    that of the comparison, which ran on ``samples`` and gave the warnings.
    """
    every = [order for own in orders.values() for order in own]
    schedule = Schedule.of(plan, len(every), len(samples))
    again = Plan.both_ways(every, schedule.counts, plan.units)

    def run(chosen: Chosen) -> Measured:
        with ticking("ablating the resampled orders", show_progress, schedule.samples) as tick, ignoring(UserWarning):
            return Engine(forward_func, sites, references, metric, again, tick).run(chosen)

    chosen = samples.few(schedule.samples)
    try:
        measured = run(chosen)
    except Exception:  # a model made for one size of batch; any other error comes again
        chosen = samples.few(schedule.samples, whole=True)
        measured = run(chosen)
    curves = [curve[:, chosen.columns] for curve in curves_of(again, measured)]
    fraction = torch.tensor([0, *schedule.counts], dtype=torch.float64) / len(every[0])
    areas = torch.stack([deficit_areas(curve, fraction) for curve in curves])  # [2 orders, m]
    found, start = {}, 0
    for name, own in orders.items():
        both = areas[start : start + 2 * len(own)]
        found[name] = RankedAgain(both[::2].clone(), both[1::2].clone())
        start += 2 * len(own)
    return found
