"""Bounds of a layer's capacity under dropout, after theorem 3 of the supplement to Marshall and Kirchner (2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from captum_ablate.diagnostics import pictures
from captum_ablate.inputs.values import whole_number
from captum_ablate.statistics.intervals import Floats


@dataclass(frozen=True, eq=False)
class CapacityBounds:
    """Bounds in bits by dropout rate, ``low``, ``tight_low`` and ``high`` ``[rates]``, for a layer of ``neurons``."""

    neurons: int
    bits: float
    dropout: Floats
    low: Floats
    tight_low: Floats
    high: Floats

    @classmethod
    def of(cls, neurons: int, bits: float, dropout: Floats) -> CapacityBounds:
        """Bound the capacity of ``neurons`` channels of ``bits`` each at the rates ``dropout [rates]``."""
        lost = -np.log2(-np.expm1(-bits * np.log(2)))  # eps
        high = (1 - dropout) * bits * neurons
        low = np.maximum(0.0, (1 - lost) * high)
        tight_low = np.maximum(0.0, (1 - dropout) * (bits - lost) * neurons)
        return cls(neurons, bits, dropout, low, tight_low, high)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per rate: dropout, low, tight_low, high (bits)."""
        columns = {"dropout": self.dropout, "low": self.low, "tight_low": self.tight_low, "high": self.high}
        return pd.DataFrame(columns)

    def plot(self, ax: Any = None) -> Any:
        """Draw the bounds by dropout rate; return the axes."""
        neurons = "1 neuron" if self.neurons == 1 else f"{self.neurons:,} neurons"
        title = f"Capacity of {neurons} of {self.bits:g} bits under dropout"
        return pictures.capacity(self.to_frame(), title=title, subtitle="after the theorem of the supplement", ax=ax)


def dropout_capacity_bounds(neurons: int, bits: float, dropout: float | Sequence[float]) -> CapacityBounds:
    """Bound the capacity of a layer whose neurons drop to 0 at random, in bits.

    The layer has m independent neurons, channels of C bits each; D is the dropout rate. Theorem 3 of the supplement to
    Marshall and Kirchner (2024, arXiv 2401.17975): (1 - eps)(1 - D) C m <= capacity <= (1 - D) C m, with
    eps = -log2(1 - 2^-C), which vanishes for large C. A dropped symbol looks like the symbol 0; an erasure channel,
    which marks it, reaches the upper bound. The supplement's proof has (1 - D)(C - eps) m, here ``tight_low``. A sender
    that never uses the symbol 0 reaches it, and it is the tighter bound for C > 1. No bound is below 0.

    Args:
        neurons: m, the number of neurons.
        bits: C, the capacity of one neuron without dropout.
        dropout: D, one rate or several, between 0 and 1.

    Raises:
        ValueError: if ``neurons``, ``bits`` or ``dropout`` is out of range.

    Example:
        >>> from captum_ablate import dropout_capacity_bounds
        >>> bounds = dropout_capacity_bounds(neurons=10, bits=4, dropout=[0.0, 0.5])
        >>> bounds.high.tolist()
        [40.0, 20.0]
    """
    neurons = whole_number(neurons, "neurons", 1, "an int, at least 1")
    if not 0 < bits < float("inf"):
        raise ValueError(f"bits, the capacity of one neuron without dropout, must be above 0 and finite; got {bits!r}")
    rates = np.atleast_1d(np.asarray(dropout, dtype=np.float64))
    if rates.ndim != 1 or not ((rates >= 0) & (rates <= 1)).all():
        raise ValueError(f"dropout must be rates between 0 and 1; got {dropout!r}")
    return CapacityBounds.of(neurons, float(bits), rates)
