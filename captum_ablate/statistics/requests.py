"""The kinds of statistics that a score may request; two requests are equal if they ask for the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from captum_ablate.statistics.histogram import ClassHistogram
from captum_ablate.statistics.moments import ClassMoments
from captum_ablate.statistics.quantiser import Quantiser
from captum_ablate.statistics.table import ActivationTable


@dataclass(frozen=True)
class MomentsRequest:
    """Ask for ``ClassMoments``."""


@dataclass(frozen=True)
class HistogramRequest:
    """Ask for the ``ClassHistogram`` under a quantiser."""

    quantiser: Quantiser


@dataclass(frozen=True)
class TableRequest:
    """Ask for the ``ActivationTable``."""


Request: TypeAlias = MomentsRequest | HistogramRequest | TableRequest
Statistic: TypeAlias = ClassMoments | ClassHistogram | ActivationTable


def needs_table(request: Request) -> bool:
    """Tell whether all activations are needed at once."""
    if isinstance(request, HistogramRequest):
        return request.quantiser.needs_table
    return isinstance(request, TableRequest)
