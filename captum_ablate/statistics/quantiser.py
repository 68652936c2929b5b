"""Turn activations into a few values T, in the same way for entropy, mutual information and KL selectivity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captum_ablate.inputs.values import whole_number


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
class Quantiser:
    """A threshold or bins, which turn activations into a few values T.

    ``threshold`` (a number, one per unit, or "median") makes one bit, ``a > threshold``. ``bins`` makes that many bins
    over the pooled activations of the whole layer, of equal "width" or equal "mass". With neither, a layer without
    positions whose outputs are >= 0 gets one bit at 0, any other layer 16 bins of equal width.
    """

    threshold: float | tuple[float, ...] | str | None = None
    bins: int | None = None
    edges: str = "width"

    @classmethod
    def of(cls, threshold: float | Tensor | str | None, bins: int | None, edges: str) -> Quantiser:
        """Return the quantiser of the public arguments, checked."""
        if isinstance(threshold, (int, float, np.number)) and not isinstance(threshold, bool):
            threshold = torch.tensor(float(threshold), dtype=torch.float64)
        if threshold is not None and not isinstance(threshold, Tensor) and threshold != "median":
            raise ValueError(f'threshold must be a number, a Tensor [units], "median" or None; got {threshold!r}')
        if threshold is not None and bins is not None:
            raise ValueError("threshold makes one bit and bins makes several: pass one of them, not both")
        if bins is not None:
            bins = whole_number(bins, "bins", 2)
        if edges not in ("width", "mass"):
            raise ValueError(f'edges must be "width" or "mass"; got {edges!r}')
        if isinstance(threshold, Tensor):
            if threshold.ndim > 1 or not bool(torch.isfinite(threshold).all()):
                raise ValueError(f"threshold must be finite, a number or [units]; got shape {tuple(threshold.shape)}")
            return cls(tuple(threshold.tolist()) if threshold.ndim else float(threshold))
        if bins is None and threshold is None and edges == "mass":
            bins = 16
        return cls(threshold, bins, edges)

    @property
    def needs_table(self) -> bool:
        """Tell whether the edges are quantiles, which need all activations at once."""
        return self.threshold == "median" or (self.bins is not None and self.edges == "mass")

    @property
    def fixed(self) -> Tensor | None:
        """The edges, or None if they depend on the data."""
        if isinstance(self.threshold, tuple):
            return torch.tensor(self.threshold, dtype=torch.float64)[:, None]
        return None if self.threshold is None or self.threshold == "median" else _edge(float(self.threshold))

    def edges_for(self, span: ValueRange, table: Tensor | None) -> Tensor:
        """Return the edges for activations of this range, ``[bins - 1]`` or ``[units, 1]``.

        ``table [n, units]`` holds the activations themselves; only quantiles need it.
        """
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


def _edge(threshold: float) -> Tensor:
    return torch.tensor([threshold], dtype=torch.float64)
