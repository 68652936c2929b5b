"""The kinds of statistics that a score may request; two requests are equal if they ask for the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from captum_ablate.statistics.histogram import ClassHistogram
from captum_ablate.statistics.moments import ClassMoments
from captum_ablate.statistics.quantiser import Quantiser
from captum_ablate.statistics.table import ActivationTable
from captum_ablate.statistics.weight_norms import WeightNorms


@dataclass(frozen=True)
class MomentsRequest:
    """Ask for ``ClassMoments``; ``squared``: of the sum of squares over positions, not of the mean over them."""

    squared: bool = False


@dataclass(frozen=True)
class HistogramRequest:
    """Ask for the ``ClassHistogram`` under a quantiser."""

    quantiser: Quantiser


@dataclass(frozen=True)
class TableRequest:
    """Ask for the ``ActivationTable``."""


@dataclass(frozen=True)
class WeightNormsRequest:
    """Ask for the ``WeightNorms`` of the layer's units, which the first batch tells."""


Request: TypeAlias = MomentsRequest | HistogramRequest | TableRequest | WeightNormsRequest
Statistic: TypeAlias = ClassMoments | ClassHistogram | ActivationTable | WeightNorms


def is_squared(request: Request) -> bool:
    """Tell whether squares are summed, not values averaged."""
    return isinstance(request, MomentsRequest) and request.squared


def needs_table(request: Request) -> bool:
    """Tell whether all activations are needed at once."""
    if isinstance(request, HistogramRequest):
        return request.quantiser.needs_table
    return isinstance(request, TableRequest)
