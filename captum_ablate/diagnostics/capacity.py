"""Bounds of the capacity of a layer under dropout, after theorem 3 of the supplement to Marshall and Kirchner 2024."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from captum_ablate.diagnostics import pictures
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
    """Bound the capacity of ``neurons`` independent channels of ``bits`` each, that drop to 0 at a rate ``dropout``.

    (1 - eps)(1 - D) C m <= capacity <= (1 - D) C m, with eps = -log2(1 - 2^-C), in bits; eps vanishes for large C. A
    dropped symbol looks like the symbol 0; were it marked (an erasure channel), the upper bound would be reached. The
    supplement's proof gives (1 - D)(C - eps) m, here ``tight_low``: what never sending the symbol 0 reaches. It is the
    tighter one for C > 1. No bound is below 0.
    """
    if isinstance(neurons, bool) or not isinstance(neurons, int) or neurons < 1:
        raise ValueError(f"neurons must be an int, at least 1; got {neurons!r}")
    if not 0 < bits < float("inf"):
        raise ValueError(f"bits, the capacity of one neuron without dropout, must be above 0 and finite; got {bits!r}")
    rates = np.atleast_1d(np.asarray(dropout, dtype=np.float64))
    if rates.ndim != 1 or not ((rates >= 0) & (rates <= 1)).all():
        raise ValueError(f"dropout must be rates between 0 and 1; got {dropout!r}")
    lost = -np.log2(-np.expm1(-bits * np.log(2)))  # eps
    high = (1 - rates) * bits * neurons
    return CapacityBounds(
        neurons,
        float(bits),
        rates,
        np.maximum(0.0, (1 - lost) * high),
        np.maximum(0.0, (1 - rates) * (bits - lost) * neurons),
        high,
    )
