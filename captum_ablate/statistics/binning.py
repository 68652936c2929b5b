"""The counting kernel of histograms: which bin each value lies in, counted per class and unit.

A value's bin is the number of edges below it. The fast paths count exactly as a comparison in float64 does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from captum_ablate.statistics.blocks import blocks, scratch


def counts_of_one_bit(values: Tensor, index: Tensor, edge: Tensor, classes: int) -> Tensor:
    """Return the counts ``[classes, units, 2]`` of ``values <= edge`` and ``values > edge``."""
    below = edge.to(values.dtype)  # the largest value of this type up to the edge: what is above it is above the edge
    below = torch.where(below.to(torch.float64) > edge, below.nextafter(below.new_tensor(-torch.inf)), below)
    counting = torch.float32 if len(values) < 2**24 else torch.float64  # what counts up to there without rounding
    above = torch.zeros(classes, values.shape[1], dtype=counting)
    is_above = scratch(values, counting)
    for block in blocks(values):
        part = torch.gt(values[block], below, out=is_above[: len(values[block])])  # 10 times as fast as .to(counting)
        above.index_add_(0, index[block], part)
    counts = above.to(torch.int64)
    return torch.stack([torch.bincount(index, minlength=classes)[:, None] - counts, counts], dim=-1)


def counts_of_bins(values: Tensor, index: Tensor, edges: Tensor, classes: int) -> Tensor:
    """Return the counts ``[classes, units, bins]`` for the shared edges ``[bins - 1]``."""
    units, bins = values.shape[1], len(edges) + 1
    counts = torch.zeros(classes * units * bins, dtype=torch.int64)
    whole = torch.int32 if len(counts) < 2**31 else torch.int64  # the narrow type is counted twice as fast
    put_bins = _put_bins(edges, values)
    unit_cell = torch.arange(units, dtype=whole) * bins
    class_cell = (index * (units * bins)).to(whole)[:, None]
    memory = scratch(values, whole)
    for block in blocks(values):
        cells = memory[: len(values[block])]
        put_bins(values[block], cells)
        cells.add_(unit_cell).add_(class_cell[block])
        counts += torch.bincount(cells.flatten(), minlength=len(counts))
    return counts.reshape(classes, units, bins)


PutBins = Callable[[Tensor, Tensor], None]
"""Write the bin of each value of a block (the first argument) into the second."""


def _put_bins(edges: Tensor, values: Tensor) -> PutBins:
    """Return the fastest exact function for blocks of ``values``.

    Edges of equal distance need no search: a value's place in units of the distance, rounded down, is its bin. Only
    values within the rounding error of an edge are searched.
    """
    search = partial(_search, edges)
    n = len(edges) + 1
    low, high = float(edges[0]), float(edges[-1])
    step = (high - low) / (n - 2)
    if not step > 0:
        return search
    scale, shift = 1 / step, 1 - low / step  # edge k, counted from 0, stands at 1 + k
    uneven = float((edges * scale + shift - torch.arange(1, n, dtype=torch.float64)).abs().max())

    def error(dtype: torch.dtype) -> float:
        """Return a bound of the error of a place computed in ``dtype``."""
        kind = torch.finfo(dtype)
        if not kind.tiny < scale < kind.max:
            return torch.inf
        return 1e-9 + 2 * uneven + 4 * kind.eps * (n + scale * max(abs(low), abs(high)))

    narrow = values.dtype == torch.float32 and error(torch.float32) < 1e-3  # twice as fast; few are searched
    dtype = torch.float32 if narrow else torch.float64
    if error(dtype) > 0.25:
        return search
    return partial(_round_down, edges, scale, shift, error(dtype), scratch(values, dtype))


def _search(edges: Tensor, values: Tensor, bins: Tensor) -> None:
    bins.copy_(torch.bucketize(values.to(torch.float64), edges))


def _round_down(
    edges: Tensor, scale: float, shift: float, near: float, spare: Tensor, values: Tensor, bins: Tensor
) -> None:
    """Round the place of each value, ``values * scale + shift``, down; search those ``near`` to an edge."""
    n = len(edges) + 1
    place = torch.mul(values.to(spare.dtype), scale, out=spare[: len(values)]).add_(shift).clamp_(0.5, n - 0.5)
    bins.copy_(place)  # rounds down
    from_middle = place.frac_().sub_(0.5).abs_()
    close = torch.from_numpy(np.flatnonzero(from_middle.numpy() > 0.5 - near))  # torch takes 10 times as long
    if len(close):
        found = torch.bucketize(values.flatten()[close].to(torch.float64), edges)
        bins.view(-1)[close] = found.to(bins.dtype)
