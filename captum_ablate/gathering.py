"""Gathering statistics: what several scores ask for, in one pass over the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch

from captum_ablate.class_statistics import ActivationTable, ClassHistogram, ClassMoments, Pooled, ValueRange
from captum_ablate.quantiser import Quantiser

TABLE_BYTES = 2**30
"""Memory budget of a table of pooled activations: 1 GiB holds 250,000 samples of 512 units."""


@dataclass(frozen=True)
class MomentsRequest:
    """Asks ``collect`` for ``ClassMoments``."""


@dataclass(frozen=True)
class HistogramRequest:
    """Asks ``collect`` for the ``ClassHistogram`` under a quantiser."""

    quantiser: Quantiser


@dataclass(frozen=True)
class TableRequest:
    """Asks ``collect`` for the ``ActivationTable``."""


Request: TypeAlias = MomentsRequest | HistogramRequest | TableRequest
Statistic: TypeAlias = ClassMoments | ClassHistogram | ActivationTable
Stream: TypeAlias = Callable[[], Iterable[list[Pooled]]]
"""Starts one pass over the data; each batch is one ``Pooled`` per stream of units (a layer, or a part of one)."""


def collect(start_pass: Stream, requests: Iterable[Request]) -> list[dict[Request, Statistic]]:
    """Return every requested statistic, for each stream of units, in one pass over the data.

    A second pass is made only for histograms whose edges depend on the range of the data, and only when the table of
    pooled activations exceeds ``TABLE_BYTES``.
    """
    gathering = Gathering(requests)
    for pooled in start_pass():
        gathering.add(pooled)
    return gathering.finish(start_pass)


class Gathering:
    """The statistics of a pass that is under way: ``add`` each batch, then ``finish``."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._requests = tuple(dict.fromkeys(requests))
        self._streams: list[_StreamState] = []

    def add(self, pooled: list[Pooled]) -> None:
        """Take one batch in."""
        if not self._streams:
            self._streams = [_StreamState(self._requests) for _ in pooled]
        for state, batch in zip(self._streams, pooled, strict=True):
            state.add(batch)

    def finish(self, start_pass: Stream) -> list[dict[Request, Statistic]]:
        """Return the statistics; ``start_pass`` is used where a second pass is needed."""
        if any(state.needs_second_pass for state in self._streams):
            for pooled in start_pass():
                for state, batch in zip(self._streams, pooled, strict=True):
                    state.add_again(batch)
        return [state.statistics() for state in self._streams]


@dataclass
class _StreamState:
    requests: tuple[Request, ...]
    moments: ClassMoments | None = None
    span: ValueRange | None = None
    table: list[Pooled] | None = field(default_factory=list)
    table_bytes: int = 0
    fixed: dict[Request, ClassHistogram] = field(default_factory=dict)
    late: dict[Request, ClassHistogram] = field(default_factory=dict)

    def add(self, batch: Pooled) -> None:
        values, target, positions = batch
        if self.moments is not None and self.moments.sums.shape[1] != values.shape[1]:
            raise ValueError(
                f"the number of units changes between batches, from {self.moments.sums.shape[1]} to {values.shape[1]}; "
                "choose the axis of the units with unit_dim (-1 for tokens of varying number)"
            )
        self.moments = _plus(self.moments, ClassMoments.of(values, target))
        self.span = _plus(self.span, ValueRange.of(values, positions))
        for request in self._histograms(fixed=True):
            self.fixed[request] = _plus(self.fixed.get(request), self._histogram(request, batch))
        if self.table is not None and self._wants_table:
            self.table.append(batch)
            self.table_bytes += values.numel() * values.element_size()
            if self.table_bytes > TABLE_BYTES:
                self._drop_table()

    def add_again(self, batch: Pooled) -> None:
        for request in self._histograms(fixed=False):
            self.late[request] = _plus(self.late.get(request), self._histogram(request, batch))

    @property
    def needs_second_pass(self) -> bool:
        return self.table is None and any(True for _ in self._histograms(fixed=False))

    def statistics(self) -> dict[Request, Statistic]:
        assert self.moments is not None
        table = self._joined_table()
        done: dict[Request, Statistic] = {**self.fixed, **self.late}
        for request in self.requests:
            if isinstance(request, MomentsRequest):
                done[request] = self.moments
            elif isinstance(request, TableRequest):
                assert table is not None
                done[request] = ActivationTable(table.values, table.target)
            elif request not in done:
                assert table is not None
                done[request] = self._histogram(request, table)
        return done

    @property
    def _wants_table(self) -> bool:
        return any(isinstance(r, TableRequest) for r in self.requests) or any(self._histograms(fixed=False))

    def _histograms(self, fixed: bool) -> Iterator[HistogramRequest]:
        for request in self.requests:
            if isinstance(request, HistogramRequest) and (request.quantiser.fixed is not None) == fixed:
                yield request

    def _histogram(self, request: HistogramRequest, batch: Pooled) -> ClassHistogram:
        units = batch.values.shape[1]
        assert self.span is not None
        edges = request.quantiser.edges_for(self.span, batch.values if self.table is not None else None)
        if edges.ndim == 2 and len(edges) != units:
            raise ValueError(f"threshold must have one value for each of the {units} units; got {len(edges)}")
        return ClassHistogram.of(batch.values, batch.target, edges)

    def _joined_table(self) -> Pooled | None:
        if not self.table:
            return None
        values, target, positions = zip(*self.table, strict=True)
        return Pooled(torch.cat(values), torch.cat(target), max(positions))

    def _drop_table(self) -> None:
        if any(_needs_table(request) for request in self.requests):
            raise ValueError(
                f"the table of pooled activations exceeds its budget of {TABLE_BYTES / 2**30:.3g} GiB, and a probe or "
                'quantile edges (threshold="median", edges="mass") need it whole: use fewer samples, or '
                'bins= with edges="width", which streams'
            )
        self.table = None


def _needs_table(request: Request) -> bool:
    if isinstance(request, HistogramRequest):
        return request.quantiser.needs_table
    return isinstance(request, TableRequest)


def _plus(total: Any, part: Any) -> Any:
    return part if total is None else total + part
