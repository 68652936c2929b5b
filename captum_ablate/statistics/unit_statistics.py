"""Sum the requested statistics of one set of units, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from captum_ablate.inputs.rounding import rounding
from captum_ablate.inputs.units import check_same_units
from captum_ablate.statistics.activation_checks import check_finite, check_rows, refuse_complex
from captum_ablate.statistics.chunks import Chunk, Chunks, joined
from captum_ablate.statistics.histogram import ClassHistogram
from captum_ablate.statistics.moments import ClassMoments, Labels
from captum_ablate.statistics.pooled import PooledBatch
from captum_ablate.statistics.quantiser import ValueRange
from captum_ablate.statistics.requests import (
    HistogramRequest,
    MomentsRequest,
    Request,
    Statistic,
    TableRequest,
    needs_table,
)
from captum_ablate.statistics.table import ActivationTable

TABLE_BYTES = 2**30
"""Memory budget of a table of pooled activations: 1 GiB holds 250,000 samples of 512 units."""


class UnitStatistics:
    """Sum over one set of units: ``add`` each batch, then ask for ``statistics``.

    Edges that depend on the range of the data need every batch twice. The first pass keeps up to ``TABLE_BYTES`` of
    activations for them. Beyond that, ``needs_second_pass`` is true and each batch has to come through ``add_again``.

    Batches with weights are kept as long as they fit, so that each resample is counted when it is asked for. Beyond
    that the sums of all resamples are held at once.
    """

    def __init__(self, requests: Iterable[Request], layer: str) -> None:
        self._requests, self._layer = tuple(dict.fromkeys(requests)), layer
        self._chunks, self._units, self._has_positions, self._batches = Chunks(), -1, False, 0
        self._moments: ClassMoments | None = None
        self._span: ValueRange | None = None
        self._histograms: dict[Request, ClassHistogram] = {}
        self._table: list[Chunk] | None = []
        self._table_bytes = 0
        self._rounding = 0.0
        self._fixed_edges: dict[Request, Tensor] = {}
        self._resampled: list[dict[Request, Any]] = []
        self._latest: tuple[int, dict[Request, Statistic]] = (-1, {})

    def add(self, batch: PooledBatch) -> None:
        """Check and add one batch: one finite row per sample, always the same number of units."""
        if batch.values.is_complex():
            if self._requests:
                refuse_complex(batch.values, self._layer)
            batch = batch._replace(values=batch.values.abs())  # to be checked alone
        units = batch.values.shape[1]
        check_rows(batch.values, len(batch.target), self._layer)
        if self._units != -1:
            check_same_units(self._units, units)
        self._units = units
        self._rounding = max(self._rounding, rounding(batch.dtype))
        self._has_positions |= batch.positions > 1
        self._count(self._chunks.add(batch))

    def add_again(self, batch: PooledBatch) -> None:
        """Add one batch of the second pass."""
        self._count_again(self._chunks.add(batch))

    def needs_second_pass(self) -> bool:
        """Count the last chunk, and tell whether every batch has to come again."""
        self._count(self._chunks.rest())
        return self._table is None and any(True for _ in self._histogram_requests(fixed=False))

    def statistics(self) -> dict[Request, Statistic]:
        """Return the statistics by request."""
        if self._table is None:
            self._count_again(self._chunks.rest())
        else:
            self._count(self._chunks.rest())
            self._count_table(self._table)
        done: dict[Request, Statistic] = dict(self._histograms)
        for request in self._requests:
            if isinstance(request, MomentsRequest):
                assert self._moments is not None
                done[request] = self._moments
            elif isinstance(request, TableRequest):
                done[request] = self._whole_table()
        return done

    def of_resample(self, number: int) -> dict[Request, Statistic]:
        """Return the statistics of a resample by request, under the edges of all samples; after ``statistics``."""
        if self._table is None:
            return self._resampled[number]
        if number == self._latest[0]:  # several scores ask for the same
            return self._latest[1]
        totals: dict[Request, Any] = {}
        parts = [chunk.resampled(number) for chunk in self._table]
        for values, labels in parts:
            for request in self._requests:
                self._add_resampled(totals, request, values, labels)
        if TableRequest() in self._requests:
            stored = tuple(values for values, _ in parts)
            target = torch.cat([labels.target for _, labels in parts])
            totals[TableRequest()] = ActivationTable(stored, target, self._rounding)
        self._latest = number, totals
        return totals

    def _add_resampled(self, totals: dict[Request, Any], request: Request, values: Tensor, labels: Labels) -> None:
        if not len(values):
            return
        if isinstance(request, MomentsRequest):
            totals[request] = _plus(totals.get(request), ClassMoments.of(values, labels))
        elif isinstance(request, HistogramRequest):
            part = ClassHistogram.of(values, labels, self._edges(request))
            totals[request] = _plus(totals.get(request), part)

    def _add_to_resamples(self, chunk: Chunk, *, again: bool) -> None:
        """Count a chunk for every resample; ``again`` for the histograms whose edges needed the range of the data."""
        if chunk.weights is None:
            return
        self._resampled = self._resampled or [{} for _ in range(chunk.weights.shape[1])]
        late = set(self._histogram_requests(fixed=False))
        for number, totals in enumerate(self._resampled):
            values, labels = chunk.resampled(number)
            for request in self._requests:
                if (request in late) == again:
                    self._add_resampled(totals, request, values, labels)

    def _count(self, chunk: Chunk | None) -> None:
        """Count a chunk for every statistic that needs one look at the data."""
        if chunk is None:
            return
        values, labels = chunk.values, chunk.labels
        low, high = (float(end) for end in torch.aminmax(values))  # NaN is both ends where there is one
        if not (isfinite(low) and isfinite(high)):
            for number, batch in enumerate(values.split(chunk.sizes), self._batches):
                check_finite(batch, self._layer, number)
        self._batches += len(chunk.sizes)
        self._span = _plus(self._span, ValueRange(low, high, self._has_positions))
        if any(isinstance(request, MomentsRequest) for request in self._requests):
            self._moments = _plus(self._moments, ClassMoments.of(values, labels, nonnegative=low >= 0))
        for request in self._histogram_requests(fixed=True):
            self._add_to_histogram(request, chunk, self._edges(request))
        if self._table is None:
            self._add_to_resamples(chunk, again=False)
        elif self._wants_table or chunk.weights is not None:
            self._table.append(chunk)
            self._table_bytes += values.numel() * values.element_size()
            if self._table_bytes > TABLE_BYTES:
                self._drop_table()

    def _count_again(self, chunk: Chunk | None) -> None:
        """Count a chunk for the histograms whose edges needed the range of the data."""
        if chunk is not None:
            for request in self._histogram_requests(fixed=False):
                self._add_to_histogram(request, chunk, self._edges(request))
            self._add_to_resamples(chunk, again=True)

    def _count_table(self, table: list[Chunk]) -> None:
        for request in self._histogram_requests(fixed=False):
            whole = self._whole_table().values if request.quantiser.needs_table else None
            edges = self._fixed_edges[request] = self._edges(request, whole)
            for chunk in table:
                self._add_to_histogram(request, chunk, edges)

    def _whole_table(self) -> ActivationTable:
        assert self._table
        values = tuple(chunk.values for chunk in self._table)
        target = joined([chunk.labels.target for chunk in self._table])
        return ActivationTable(values, target, self._rounding)

    @property
    def _wants_table(self) -> bool:
        return TableRequest() in self._requests or any(True for _ in self._histogram_requests(fixed=False))

    def _histogram_requests(self, fixed: bool) -> Iterator[HistogramRequest]:
        for request in self._requests:
            if isinstance(request, HistogramRequest) and (request.quantiser.fixed is not None) == fixed:
                yield request

    def _edges(self, request: HistogramRequest, table: Tensor | None = None) -> Tensor:
        assert self._span is not None
        if request in self._fixed_edges:
            return self._fixed_edges[request]
        edges = request.quantiser.edges_for(self._span, table)
        if edges.ndim == 2 and len(edges) != self._units:
            raise ValueError(f"threshold must have one value for each of the {self._units} units; got {len(edges)}")
        return edges

    def _add_to_histogram(self, request: Request, chunk: Chunk, edges: Tensor) -> None:
        part = ClassHistogram.of(chunk.values, chunk.labels, edges)
        self._histograms[request] = _plus(self._histograms.get(request), part)

    def _drop_table(self) -> None:
        if any(needs_table(request) for request in self._requests):
            raise ValueError(
                f"the table of pooled activations exceeds its budget of {TABLE_BYTES / 2**30:.3g} GiB, and a probe or "
                'quantile edges (threshold="median", edges="mass") need it whole: use fewer samples, or '
                'bins= with edges="width", which streams'
            )
        kept, self._table = self._table or [], None
        for chunk in kept:
            self._add_to_resamples(chunk, again=False)


def _plus(total: Any, part: Any) -> Any:
    return part if total is None else total + part
