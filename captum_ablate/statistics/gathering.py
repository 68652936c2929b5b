"""Gathering statistics: what several scores ask for, in one pass over the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from captum_ablate.statistics.class_statistics import (
    ActivationTable,
    ClassHistogram,
    ClassMoments,
    Labels,
    Pooled,
    ValueRange,
    check_finite,
    check_rows,
)
from captum_ablate.statistics.quantiser import Quantiser

TABLE_BYTES = 2**30
"""Memory budget of a table of pooled activations: 1 GiB holds 250,000 samples of 512 units."""

CHUNK_VALUES = 2**21
"""Small batches are joined to this many values before anything is counted, so that a batch costs little."""
CHUNK_VALUES_ELSEWHERE = 2**22
"""The same on another device, where each chunk is one copy to the CPU and one wait."""


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
    """The statistics of a pass that is under way: ``add`` each batch, then ``finish``.

    ``layer`` is the name for the error where activations are not finite; without it they are taken as checked.
    """

    def __init__(self, requests: Iterable[Request], layer: str | None = None) -> None:
        self._requests, self._layer = tuple(dict.fromkeys(requests)), layer
        self._streams: list[_StreamState] = []

    def add(self, pooled: list[Pooled]) -> None:
        """Take one batch in."""
        if not self._streams:
            self._streams = [_StreamState(self._requests, self._layer) for _ in pooled]
        for stream, batch in zip(self._streams, pooled, strict=True):
            stream.add(batch)

    def finish(self, start_pass: Stream) -> list[dict[Request, Statistic]]:
        """Return the statistics; ``start_pass`` is used where a second pass is needed."""
        if self.needs_second_pass:
            for pooled in start_pass():
                self.add_again(pooled)
        return self.statistics()

    @property
    def needs_second_pass(self) -> bool:
        """Whether every batch is to come once more, through ``add_again``."""
        waits = [stream.needs_second_pass for stream in self._streams]  # all are asked: asking counts what has come
        return any(waits)

    def add_again(self, pooled: list[Pooled]) -> None:
        """Take one batch of the second pass in."""
        for stream, batch in zip(self._streams, pooled, strict=True):
            stream.add_again(batch)

    def statistics(self) -> list[dict[Request, Statistic]]:
        """Return the statistics by request, for each stream of units."""
        return [stream.statistics() for stream in self._streams]


class _Chunk(NamedTuple):
    values: Tensor  # [n, units], on the CPU, in the type that came
    labels: Labels
    sizes: list[int]  # of the batches in it


class _Chunks:
    """Joins small batches to chunks on the CPU; ``add`` and ``rest`` give a chunk when there is one."""

    def __init__(self) -> None:
        self._pending: list[Pooled] = []
        self._values = 0

    def add(self, batch: Pooled) -> _Chunk | None:
        self._pending.append(batch)
        self._values += batch.values.numel()
        return self.rest() if self._values >= _enough(batch.values) else None

    def rest(self) -> _Chunk | None:
        if not self._pending:
            return None
        batches, self._pending, self._values = self._pending, [], 0
        values, target, _ = zip(*batches, strict=True)
        return _Chunk(_joined(values).cpu(), Labels.of(_joined(target).cpu()), [len(t) for t in target])


class Rows:
    """Copies batches of values into one piece of memory, row behind row, so that they need not be joined later."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, 0)
        self._used, self._full = 0, 0

    def copy(self, values: Tensor) -> Tensor:
        """Return a copy of ``values [n, ...]``, ``[n, units]``."""
        values = values.detach().flatten(1)
        n, units = values.shape
        start, self._used = self._used, self._used + n
        memory = self._memory
        fits = start < self._full and self._used <= len(memory) and memory.shape[1] == units
        if not (fits and memory.dtype == values.dtype and memory.device == values.device):
            start, self._used, self._full = 0, n, -(-_enough(values) // max(1, units))
            memory = self._memory = _memory(n + self._full, values)
        return memory[start : self._used].copy_(values)


class _StreamState:
    """What one stream of units has gathered so far."""

    def __init__(self, requests: tuple[Request, ...], layer: str | None) -> None:
        self._requests, self._layer = requests, layer
        self._chunks, self._units, self._has_positions, self._batches = _Chunks(), -1, False, 0
        self._moments: ClassMoments | None = None
        self._span: ValueRange | None = None
        self._histograms: dict[Request, ClassHistogram] = {}
        self._table: list[_Chunk] | None = []
        self._table_bytes = 0

    def add(self, batch: Pooled) -> None:
        units = batch.values.shape[1]
        if self._layer is not None:
            check_rows(batch.values, len(batch.target), self._layer)
        if self._units not in (-1, units):
            raise ValueError(
                f"the number of units changes between batches, from {self._units} to {units}; "
                "choose the axis of the units with unit_dim (-1 for tokens of varying number)"
            )
        self._units = units
        self._has_positions |= batch.positions > 1
        self._count(self._chunks.add(batch))

    def add_again(self, batch: Pooled) -> None:
        self._count_again(self._chunks.add(batch))

    @property
    def needs_second_pass(self) -> bool:
        self._count(self._chunks.rest())
        return self._table is None and any(True for _ in self._histogram_requests(fixed=False))

    def statistics(self) -> dict[Request, Statistic]:
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

    def _count(self, chunk: _Chunk | None) -> None:
        """Take in what needs one look at the data."""
        if chunk is None:
            return
        values, labels, _ = chunk
        low, high = (float(end) for end in torch.aminmax(values))  # NaN is both ends where there is one
        if self._layer is not None and not (isfinite(low) and isfinite(high)):
            for number, batch in enumerate(values.split(chunk.sizes), self._batches):
                check_finite(batch, self._layer, number)
        self._batches += len(chunk.sizes)
        self._span = _plus(self._span, ValueRange(low, high, self._has_positions))
        if MomentsRequest() in self._requests:
            self._moments = _plus(self._moments, ClassMoments.of(values, labels, nonnegative=low >= 0))
        for request in self._histogram_requests(fixed=True):
            self._add_to_histogram(request, chunk, self._edges(request))
        if self._table is not None and self._wants_table:
            self._table.append(chunk)
            self._table_bytes += values.numel() * values.element_size()
            if self._table_bytes > TABLE_BYTES:
                self._drop_table()

    def _count_again(self, chunk: _Chunk | None) -> None:
        """Take in what needs to know the range of the data first."""
        if chunk is not None:
            for request in self._histogram_requests(fixed=False):
                self._add_to_histogram(request, chunk, self._edges(request))

    def _count_table(self, table: list[_Chunk]) -> None:
        for request in self._histogram_requests(fixed=False):
            whole = self._whole_table().values if request.quantiser.needs_table else None
            edges = self._edges(request, whole)
            for chunk in table:
                self._add_to_histogram(request, chunk, edges)

    def _whole_table(self) -> ActivationTable:
        assert self._table
        values, labels, _ = zip(*self._table, strict=True)
        return ActivationTable(tuple(values), _joined([one.target for one in labels]))

    @property
    def _wants_table(self) -> bool:
        return TableRequest() in self._requests or any(True for _ in self._histogram_requests(fixed=False))

    def _histogram_requests(self, fixed: bool) -> Iterator[HistogramRequest]:
        for request in self._requests:
            if isinstance(request, HistogramRequest) and (request.quantiser.fixed is not None) == fixed:
                yield request

    def _edges(self, request: HistogramRequest, table: Tensor | None = None) -> Tensor:
        assert self._span is not None
        edges = request.quantiser.edges_for(self._span, table)
        if edges.ndim == 2 and len(edges) != self._units:
            raise ValueError(f"threshold must have one value for each of the {self._units} units; got {len(edges)}")
        return edges

    def _add_to_histogram(self, request: Request, chunk: _Chunk, edges: Tensor) -> None:
        part = ClassHistogram.of(chunk.values, chunk.labels, edges)
        self._histograms[request] = _plus(self._histograms.get(request), part)

    def _drop_table(self) -> None:
        if any(_needs_table(request) for request in self._requests):
            raise ValueError(
                f"the table of pooled activations exceeds its budget of {TABLE_BYTES / 2**30:.3g} GiB, and a probe or "
                'quantile edges (threshold="median", edges="mass") need it whole: use fewer samples, or '
                'bins= with edges="width", which streams'
            )
        self._table = None


def _needs_table(request: Request) -> bool:
    if isinstance(request, HistogramRequest):
        return request.quantiser.needs_table
    return isinstance(request, TableRequest)


def _memory(rows: int, values: Tensor) -> Tensor:
    """Return ``[rows, units]`` of the type of ``values [n, units]``, not filled.

    NumPy asks the system for huge pages where torch does not, so that touching it for the first time costs a third.
    """
    shape = (rows, values.shape[1])
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        return torch.from_numpy(np.empty(shape, dtype=str(values.dtype).removeprefix("torch.")))
    return values.new_empty(shape)


def _enough(values: Tensor) -> int:
    return CHUNK_VALUES if values.device.type == "cpu" else CHUNK_VALUES_ELSEWHERE


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Return ``parts`` one behind the other: without a copy where they lie so in memory."""
    first = parts[0]
    if len(parts) == 1:
        return first
    place, memory = first.storage_offset(), first.untyped_storage().data_ptr()
    for part in parts:
        if (part.storage_offset(), part.untyped_storage().data_ptr()) != (place, memory) or not part.is_contiguous():
            return torch.cat(list(parts))
        place += part.numel()
    return first.as_strided((sum(map(len, parts)), *first.shape[1:]), first.stride())


def _plus(total: Any, part: Any) -> Any:
    return part if total is None else total + part
