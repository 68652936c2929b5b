"""Evaluate on as many samples as a precision needs: drawn at random until every deletion area is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_ablate.ablation import Engine, Measured, Plan, Probe, Reference, ReferenceOption
from captum_ablate.ablation.metrics import Metric, bounds_of, metric_name
from captum_ablate.evaluation.areas import curves_of, deficit_areas
from captum_ablate.inputs.fingerprint import DataDigest
from captum_ablate.inputs.progress import ticking
from captum_ablate.inputs.sampling import RandomOrder
from captum_ablate.statistics.confidence_sequence import ConfidenceSequence, Sampled, as_fractions

GROWTH = 0.125
"""Each further lot of samples is this share of those drawn: few looks, and at most an eighth drawn in vain."""


class Places:
    """The positions in the data set of the lot that is being measured."""

    positions: list[int] = []  # noqa: RUF012  replaced, never changed


@dataclass(frozen=True)
class Precision:
    """The half-width to which deletion areas are to be known, the samples to draw from, and the metric's bounds."""

    half_width: float
    draw: RandomOrder
    bounds: tuple[float, float]
    places: Places

    @classmethod
    def of(cls, until: float, metric: str | Metric, data: Any, *, seed: int, **options: Any) -> Precision:
        """Return the precision, checked: a number above 0, a metric with bounds, and data that can be drawn from.

        ``options`` are those of ``as_batches``.
        """
        if isinstance(until, bool) or not isinstance(until, (int, float, np.number)) or not until > 0:
            raise ValueError(f"until must be a half-width above 0, in units of the metric; got {until!r}")
        bounds = bounds_of(metric)
        if bounds is None:
            raise ValueError(
                f"until needs a metric between known bounds, and {metric_name(metric)!r} has none; take "
                'metric="accuracy", or declare those of your own function: f.bounds = (0.0, 1.0)'
            )
        return cls(float(until), RandomOrder.of(data, seed=seed, **options), bounds, Places())

    def sampled(self, methods: int) -> Sampled:
        """Return what intervals need to know of the draw."""
        return Sampled(self.half_width, len(self.draw), methods, self.bounds)

    def by_place(self, references: Sequence[Reference], options: Sequence[ReferenceOption]) -> list[Reference]:
        """Return ``references``, those of "resample" by a sample's position in the data set.

        So the value of a sample, and with it the mean that is looked for, does not depend on when it is drawn.
        """
        pairs = zip(references, options, strict=True)
        return [_AtPlaces(r, self.places) if isinstance(o, str) and o == "resample" else r for r, o in pairs]

    def measure(
        self,
        engine: Engine,
        areas: Callable[[Measured], Sequence[Tensor]],
        name: str,
        show_progress: bool,
        seen: Probe | None = None,
    ) -> tuple[Measured, DataDigest]:
        """Return the metric of the samples drawn until all means of ``areas`` are known, and these samples' digest.

        ``areas`` are D_i, one per method.
        """
        lots, digest = list[Measured](), DataDigest()
        sequence: ConfidenceSequence | None = None
        n, total = 0, len(self.draw)
        with ticking(name, show_progress, total) as tick:
            while n < total:
                size = self.draw.batch_size * ceil(max(GROWTH * n, 1) / self.draw.batch_size)
                order = self.draw.order[n : n + size]
                self.places.positions = order.tolist()
                retracted = engine.restarts
                batches = self.draw.batches(order)
                batches.keep_digest()
                lots.append(engine.run(batches, seen if n == 0 else None))
                self._check_bounds(lots[-1])
                if engine.restarts > retracted and n > 0:  # earlier lots may be wrong too
                    lots, digest, sequence, n = [], DataDigest(), None, 0
                    continue
                if batches.digest is not None:
                    digest.extend(batches.digest)
                values = np.stack([area.numpy() for area in areas(lots[-1])], axis=1)
                if sequence is None:
                    sequence = ConfidenceSequence.start(values.shape[1], total)
                span = self.bounds[1] - self.bounds[0]
                sequence = sequence.extended(as_fractions(values, -span, span))
                n += len(order)
                tick(len(order))
                if float(2 * span * sequence.half_width.max()) <= self.half_width:
                    break
        measured = Measured(
            torch.cat([lot.intact for lot in lots]),
            torch.cat([lot.values for lot in lots], dim=1),
            torch.cat([lot.target for lot in lots]),
            lots[-1].engine,
        )
        return measured, digest

    def _check_bounds(self, measured: Measured) -> None:
        values = torch.cat([measured.intact[None], measured.values]).to(torch.float64).numpy()
        fractions = as_fractions(values, *self.bounds)
        if fractions.min() < 0 or fractions.max() > 1:
            raise ValueError(
                f"the metric leaves the bounds that it declares, {self.bounds[0]:g} to {self.bounds[1]:g}: it takes "
                f"values from {values.min():g} to {values.max():g}"
            )


class _AtPlaces:
    """A reference that takes each sample by its position in the data set, as when all are evaluated in their order."""

    def __init__(self, reference: Any, places: Places) -> None:
        self._reference, self._places = reference, places

    def __call__(self, activation: Tensor, target: Tensor, first: int) -> Tensor:
        own = self._places.positions[first : first + len(activation)]
        parts = [self._reference(activation[k : k + 1], target[k : k + 1], position) for k, position in enumerate(own)]
        return torch.cat(parts)


class DeletionAreas:
    """The D_i of each method's descending order, which ``until`` is about."""

    def __init__(self, plan: Plan, methods: int) -> None:
        self._plan, self._methods = plan, methods
        self._fraction = torch.tensor([0, *plan.chains[0].counts], dtype=torch.float64) / len(plan.chains[0].order)

    def __call__(self, measured: Measured) -> list[Tensor]:
        """Return them for each method, ``[n]`` each."""
        curves = curves_of(self._plan, measured)[: 2 * self._methods : 2]
        return [deficit_areas(curve, self._fraction) for curve in curves]
