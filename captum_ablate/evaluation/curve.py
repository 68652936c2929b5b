"""The deficit curve of one ranking of units: what the network loses as they are ablated, and what that says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_ablate.evaluation import plots
from captum_ablate.statistics.confidence_sequence import Sampled
from captum_ablate.statistics.intervals import Interval, mean_bands, mean_interval

Value = TypeVar("Value")


def deficit_areas(values: Tensor, fraction: Tensor) -> Tensor:
    """Return D_i, the area between the intact metric and the curve of each sample, ``[n]``.

    D_i = v_i0 - sum_k (f_(k+1) - f_k) (v_ik + v_i(k+1)) / 2, for ``values [steps+1, n]`` at ``fraction [steps+1]``.
    """
    widths = (fraction[1:] - fraction[:-1])[:, None]
    return values[0] - (widths * (values[1:] + values[:-1]) / 2).sum(dim=0)


@dataclass(frozen=True, eq=False)
class DeficitCurve:
    """The metric as units are ablated in the order of a ranking, most important first, and in the reverse order.

    ``values [steps+1, n]`` (float64) is the metric of each sample at each step of the descending order,
    ``ascending_values`` that of the reverse order (None where it was not asked for); step 0 is intact, the last has
    every unit ablated. Areas compare only within one layer, reference, grid and metric.
    """

    name: str
    scores: Tensor
    order: Tensor
    n_ablated: Tensor
    values: Tensor
    ascending_values: Tensor | None
    target: Tensor
    over_random: float
    over_random_interval: Interval
    p: float
    ties: int
    provenance: Mapping[str, Any]

    @property
    def fraction(self) -> Tensor:
        """Fraction of the units that is ablated at each step, ``[steps+1]``."""
        return self.n_ablated.to(torch.float64) / len(self.order)

    @property
    def score(self) -> Tensor:
        """Mean metric at each step of the descending order, ``[steps+1]``."""
        return self.values.mean(dim=1)

    @property
    def ascending_score(self) -> Tensor | None:
        """Mean metric at each step of the reverse order, ``[steps+1]``."""
        return None if self.ascending_values is None else self.ascending_values.mean(dim=1)

    @property
    def layers(self) -> dict[str, int]:
        """Number of units by layer; the units of several layers count on from one to the next."""
        return dict(self.provenance.get("layers", {self.provenance["layer"]: len(self.order)}))

    def located(self, units: Tensor) -> list[tuple[str, int]]:
        """Return the layer of each unit, and its number in that layer: for orders over several layers."""
        bounds = np.cumsum(list(self.layers.values()))
        which = np.searchsorted(bounds, units.numpy(), side="right")
        names, starts = list(self.layers), [0, *bounds]
        return [(names[k], int(u - starts[k])) for k, u in zip(which, units.numpy(), strict=True)]

    @property
    def deficit(self) -> Tensor:
        """Loss of the mean metric at each step, ``[steps+1]``."""
        return self.score[0] - self.score

    @property
    def classes(self) -> Tensor:
        """Labels present, ascending, ``[classes]``."""
        return torch.unique(self.target)

    @property
    def per_class(self) -> Tensor:
        """Mean metric over the samples of each class, ``[classes, steps+1]``."""
        return torch.stack([self.values[:, self.target == c].mean(dim=1) for c in self.classes.tolist()])

    @property
    def areas(self) -> Tensor:
        """D_i of the descending order, ``[n]``."""
        return deficit_areas(self.values, self.fraction)

    @property
    def ascending_areas(self) -> Tensor | None:
        """D_i of the reverse order, ``[n]``."""
        if self.ascending_values is None:
            return None
        return deficit_areas(self.ascending_values, self.fraction)

    @property
    def gap_areas(self) -> Tensor:
        """What each sample adds to the gap: D_i descending minus D_i ascending, ``[n]``; NaN without the reverse."""
        reverse = self.ascending_areas
        return torch.full_like(self.areas, torch.nan) if reverse is None else self.areas - reverse

    @property
    def deletion(self) -> float:
        """Mean D_i of the descending order: how fast the metric falls when the top units go first."""
        return float(self.areas.mean())

    @property
    def insertion(self) -> float:
        """Minus the mean D_i of the reverse order, which read backwards keeps only the top units."""
        reverse = self.ascending_areas
        return float("nan") if reverse is None else -float(reverse.mean())

    @property
    def gap(self) -> float:
        """Deletion plus insertion, the headline: larger means that the ranking finds the units that matter."""
        return float(self.gap_areas.mean())

    @property
    def deletion_interval(self) -> Interval:
        """95 % interval over images: Student's t, or the confidence sequence where images were drawn for precision."""
        return self._interval(self.areas)

    @property
    def insertion_interval(self) -> Interval:
        """95 % interval over images."""
        reverse = self.ascending_areas
        return Interval(np.nan, np.nan) if reverse is None else self._interval(-reverse)

    @property
    def gap_interval(self) -> Interval:
        """95 % interval over images."""
        return self._interval(self.gap_areas)

    @property
    def sampled(self) -> Sampled | None:
        """How images were drawn, where a precision was asked for."""
        return sampled_of(self.provenance)

    def _interval(self, values: Tensor) -> Interval:
        if bool(values.isnan().any()):
            return Interval(np.nan, np.nan)
        return mean_interval(values.numpy()) if self.sampled is None else self.sampled.interval(values.numpy())

    @property
    def engine(self) -> str:
        """How the outputs were computed: "replay", "closed form" or "hook loop (reason)"."""
        return str(self.provenance["engine"])

    @property
    def in_sample(self) -> bool:
        """Whether the ranking was made on the very data that it is evaluated on."""
        return bool(self.provenance["in_sample"])

    def top(self, k: int) -> Tensor:
        """Return the ``k`` most important units, ``[k]``, most important first."""
        if not 0 <= k <= len(self.order):
            raise ValueError(f"k must be between 0 and the number of units, {len(self.order)}; got {k}")
        return self.order[:k]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per direction and step: method, direction, n_ablated, fraction, score, low, high, deficit."""
        frames = [self._direction("descending", self.values)]
        if self.ascending_values is not None:
            frames.append(self._direction("ascending", self.ascending_values))
        return pd.concat(frames, ignore_index=True)

    def plot(self, ax: Any = None) -> Any:
        """Draw the curve with its band, and the reverse order dashed; return the axes."""
        return plots.deficit_curves(self.to_frame(), title=self.setting, metric=str(self.provenance["metric"]), ax=ax)

    @property
    def setting(self) -> str:
        """Layer, reference, metric and data, in a line."""
        return setting(self.provenance)

    def __repr__(self) -> str:
        low, high = self.gap_interval
        return (
            f"DeficitCurve({self.name!r}: gap {self.gap:.3f} [{low:.3f}, {high:.3f}], deletion {self.deletion:.3f}, "
            f"insertion {self.insertion:.3f}; {self.setting})"
        )

    def _direction(self, direction: str, values: Tensor) -> pd.DataFrame:
        mean = values.mean(dim=1).numpy()
        low, high = mean_bands(values.numpy()) if self.sampled is None else self.sampled.bands(values.numpy())
        return pd.DataFrame(
            {
                "method": self.name,
                "direction": direction,
                "n_ablated": self.n_ablated.numpy(),
                "fraction": self.fraction.numpy(),
                "score": mean,
                "low": low,
                "high": high,
                "deficit": mean[0] - mean,
            }
        )


def setting(provenance: Mapping[str, Any]) -> str:
    """Return layer, reference, metric and data of a result, in a line."""
    orders, sampled = provenance["n_random"], sampled_of(provenance)
    images = (
        f"{provenance['n']:,} images" if sampled is None else f"{provenance['n']:,} of {sampled.population:,} images"
    )
    text = (
        f"{provenance['layer']} ({provenance['units']:,} units, {provenance['reference']} reference, "
        f"{provenance['metric'].replace('_', ' ')} {provenance['intact']:.3f} on {images}"
        + (f", {orders} random orders" if orders else "")
        + ")"
    )
    if sampled is not None:
        text += (
            f" drawn at random until each deletion is known to \N{PLUS-MINUS SIGN}{sampled.half_width:g}; "
            "intervals: 95 % confidence sequences, for all methods together"
        )
    return text + (" in-sample: ranked on the data that it is evaluated on" if provenance["in_sample"] else "")


def sampled_of(provenance: Mapping[str, Any]) -> Sampled | None:
    """Return how the images of a result were drawn, where a precision was asked for."""
    found = provenance.get("sampled")
    return None if found is None else Sampled(**{**found, "bounds": tuple(found["bounds"])})


class Frozen(Mapping[str, Value]):
    """A mapping that cannot be changed, and can be pickled."""

    def __init__(self, items: Mapping[str, Value]) -> None:
        self._items = dict(items)

    def __getitem__(self, name: str) -> Value:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(self._items)
