"""What a score needs of the data: sums over samples, streamed batch by batch and merged with ``+``.

Every statistic starts from pooled activations ``values [n, units]`` (float64) and ``target [n]`` (int64). Sums are
float64 and histograms integer, so the order of samples and the split into batches do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

TABLE_BYTES = 2**30
"""Memory budget of a table of pooled activations: 1 GiB holds 250,000 samples of 512 units."""


class Pooled(NamedTuple):
    """A batch of pooled activations: ``values [n, units]``, ``target [n]``, positions averaged into each value."""

    values: Tensor
    target: Tensor
    positions: int = 1


@dataclass(frozen=True)
class ClassMoments:
    """Counts and sums per class: ``classes [classes]``, ``counts [classes]``, ``sums [classes, units]``."""

    classes: Tensor
    counts: Tensor
    sums: Tensor
    absolute_sums: Tensor

    @classmethod
    def of(cls, values: Tensor, target: Tensor) -> ClassMoments:
        """Return the moments of one batch, ``values [n, units]``, ``target [n]``."""
        classes, index = torch.unique(target, return_inverse=True)
        zeros = values.new_zeros(len(classes), values.shape[1])
        return cls(
            classes,
            torch.bincount(index, minlength=len(classes)),
            zeros.index_add(0, index, values),
            zeros.index_add(0, index, values.abs()),
        )

    def __add__(self, other: ClassMoments) -> ClassMoments:
        classes, (counts, sums, absolute_sums) = _merge(
            (self.classes, (self.counts, self.sums, self.absolute_sums)),
            (other.classes, (other.counts, other.sums, other.absolute_sums)),
        )
        return ClassMoments(classes, counts, sums, absolute_sums)

    @property
    def means(self) -> Tensor:
        """Mean activation per class, ``[classes, units]``."""
        return self.sums / self.counts[:, None]

    @property
    def absolute_means(self) -> Tensor:
        """Mean absolute activation per class, ``[classes, units]``."""
        return self.absolute_sums / self.counts[:, None]

    @property
    def mean(self) -> Tensor:
        """Mean activation over all samples, ``[units]``."""
        return self.sums.sum(0) / self.counts.sum()

    @property
    def absolute_mean(self) -> Tensor:
        """Mean absolute activation over all samples, ``[units]``."""
        return self.absolute_sums.sum(0) / self.counts.sum()


@dataclass(frozen=True)
class ClassHistogram:
    """Counts of quantised activations: ``classes [classes]``, ``counts [classes, units, bins]`` (int64)."""

    classes: Tensor
    counts: Tensor

    @classmethod
    def of(cls, values: Tensor, target: Tensor, edges: Tensor) -> ClassHistogram:
        """Return the histogram of one batch; a value's bin is the number of ``edges`` below it.

        ``edges`` are ascending: ``[bins - 1]`` for all units, or ``[units, 1]`` for one threshold per unit.
        """
        classes, index = torch.unique(target, return_inverse=True)
        units = values.shape[1]
        shared = edges.ndim == 1
        bins = edges.shape[-1] + 1
        quantised = torch.bucketize(values, edges) if shared else (values > edges[:, 0]).to(torch.int64)
        cell = (index[:, None] * units + torch.arange(units)) * bins + quantised
        counts = torch.bincount(cell.flatten(), minlength=len(classes) * units * bins)
        return cls(classes, counts.reshape(len(classes), units, bins))

    def __add__(self, other: ClassHistogram) -> ClassHistogram:
        classes, (counts,) = _merge((self.classes, (self.counts,)), (other.classes, (other.counts,)))
        return ClassHistogram(classes, counts)

    @cached_property
    def p_class(self) -> Tensor:
        """P(Y = c), ``[classes]``."""
        per_class = self.counts[:, 0].sum(-1).to(torch.float64)
        return per_class / per_class.sum()

    @cached_property
    def p_bin(self) -> Tensor:
        """P(T = t), ``[units, bins]``."""
        return self.counts.sum(0).double() / self.counts[:, 0].sum()

    @cached_property
    def p_bin_given_class(self) -> Tensor:
        """P(T = t given Y = c), ``[classes, units, bins]``."""
        return self.counts.double() / self.counts.sum(-1, keepdim=True)


@dataclass(frozen=True)
class ValueRange:
    """Smallest and largest pooled activation of the whole layer, and whether a value pools several positions."""

    low: float
    high: float
    has_positions: bool

    @classmethod
    def of(cls, values: Tensor, positions: int) -> ValueRange:
        """Return the range of one batch, ``values [n, units]``."""
        return cls(float(values.min()), float(values.max()), positions > 1)

    def __add__(self, other: ValueRange) -> ValueRange:
        return ValueRange(
            min(self.low, other.low), max(self.high, other.high), self.has_positions or other.has_positions
        )


@dataclass(frozen=True)
class ActivationTable:
    """The pooled activations themselves: ``values [n, units]``, ``target [n]``, in the order of the data."""

    values: Tensor
    target: Tensor

    @property
    def classes(self) -> Tensor:
        """The labels present, ascending, ``[classes]``."""
        return torch.unique(self.target)


@dataclass(frozen=True)
class Quantiser:
    """How activations become a few values T, one quantiser for H(T), I(T;Y) and KL selectivity.

    ``threshold`` (a number, one per unit, or "median") gives one bit, ``a > threshold``. ``bins`` gives that many
    bins over the whole layer's pooled activations, of equal ``"width"`` or equal ``"mass"``. With neither: one bit at
    0 for layers without positions whose outputs are >= 0, else 16 bins of equal width.
    """

    threshold: float | tuple[float, ...] | str | None = None
    bins: int | None = None
    edges: str = "width"

    @classmethod
    def of(cls, threshold: float | Tensor | str | None, bins: int | None, edges: str) -> Quantiser:
        """Return the quantiser of the public arguments, checked."""
        if isinstance(threshold, (int, float)) and not isinstance(threshold, bool):
            threshold = torch.tensor(float(threshold), dtype=torch.float64)
        if threshold is not None and not isinstance(threshold, Tensor) and threshold != "median":
            raise ValueError(f'threshold must be a number, a Tensor [units], "median" or None; got {threshold!r}')
        if threshold is not None and bins is not None:
            raise ValueError("threshold gives one bit and bins gives several: pass one of them, not both")
        if bins is not None and (isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 2):
            raise ValueError(f"bins must be an int of at least 2; got {bins!r}")
        if edges not in ("width", "mass"):
            raise ValueError(f'edges must be "width" or "mass"; got {edges!r}')
        if isinstance(threshold, Tensor):
            if threshold.ndim > 1 or not bool(torch.isfinite(threshold).all()):
                raise ValueError(f"threshold must be finite, a number or [units]; got shape {tuple(threshold.shape)}")
            return cls(tuple(threshold.tolist()) if threshold.ndim else float(threshold))
        bins = bins if bins is None else int(bins)
        if bins is None and threshold is None and edges == "mass":
            bins = 16
        return cls(threshold, bins, edges)

    @property
    def needs_table(self) -> bool:
        """Whether the edges are quantiles, which need all activations at once."""
        return self.threshold == "median" or (self.bins is not None and self.edges == "mass")

    @property
    def fixed(self) -> Tensor | None:
        """The edges, where they do not depend on the data."""
        if isinstance(self.threshold, tuple):
            return torch.tensor(self.threshold, dtype=torch.float64)[:, None]
        return None if self.threshold is None or self.threshold == "median" else _edge(float(self.threshold))

    def edges_for(self, span: ValueRange, table: Tensor | None) -> Tensor:
        """Return the edges for activations of this range, ``[bins - 1]`` or ``[units, 1]``."""
        if self.fixed is not None:
            return self.fixed
        if self.threshold == "median":
            assert table is not None
            ordered, n = table.sort(dim=0).values, len(table)
            return ((ordered[(n - 1) // 2] + ordered[n // 2]) / 2)[:, None]
        if self.bins is None and span.low >= 0 and not span.has_positions:
            return _edge(0.0)
        bins = self.bins or 16
        inner = torch.arange(1, bins, dtype=torch.float64) / bins
        if self.edges == "mass":
            assert table is not None
            ordered = table.flatten().sort().values
            place = inner * (len(ordered) - 1)
            below, above = ordered[place.floor().long()], ordered[place.ceil().long()]
            return below + (above - below) * (place - place.floor())
        return span.low + (span.high - span.low) * inner


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


def _edge(threshold: float) -> Tensor:
    return torch.tensor([threshold], dtype=torch.float64)


def _plus(total: Any, part: Any) -> Any:
    return part if total is None else total + part


def _merge(a: tuple[Tensor, tuple[Tensor, ...]], b: tuple[Tensor, tuple[Tensor, ...]]) -> tuple[Tensor, list[Tensor]]:
    """Add tensors whose first axis is classes, aligned by class."""
    if torch.equal(a[0], b[0]):
        return a[0], [x + y for x, y in zip(a[1], b[1], strict=True)]
    classes, index = torch.unique(torch.cat([a[0], b[0]]), return_inverse=True)
    merged = []
    for x, y in zip(a[1], b[1], strict=True):
        both = torch.cat([x, y])
        merged.append(both.new_zeros(len(classes), *both.shape[1:]).index_add(0, index, both))
    return classes, merged
