"""The deficit curve of one ranking of units: what the network loses as they are ablated, and what that says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_ablate.evaluation import plots
from captum_ablate.evaluation.areas import deficit_areas
from captum_ablate.evaluation.claims import order_only_notes, plot_notes
from captum_ablate.evaluation.notes import chance_notes, gap_notes, layer_notes, overlap_notes, step_notes, tie_notes
from captum_ablate.evaluation.provenance import Frozen, Provenance
from captum_ablate.evaluation.ranked_again import NEVER, RankedAgain
from captum_ablate.inputs.targets import as_target
from captum_ablate.statistics.confidence_sequence import Sampled
from captum_ablate.statistics.intervals import Floats, Interval, bounded_bands, mean_bands
from captum_ablate.statistics.null import against_chance
from captum_ablate.statistics.ranking_noise import RankingNoise, interval_with

GAP_MEANING = "gap = deletion + insertion: larger means that the attribution finds the units that the network needs"
"""The sentence under every leaderboard."""


@dataclass(frozen=True, eq=False)
class DeficitCurve:
    """The metric as units are ablated in the order of a ranking, most important first, and in the reverse order.

    ``values [steps+1, n]`` (float64) is the metric of each sample at each step of the descending order,
    ``ascending_values`` that of the reverse order; step 0 is intact, the last has every unit ablated. Areas compare
    only within one layer, reference, grid and metric. ``z``, ``p_raw`` and ``p_exact`` hold the gap against the random
    orders (``statistics.null``); ``p`` is ``p_raw`` corrected for the number of methods (Holm). All p are NaN for a
    ranking made on the samples that are evaluated, and where samples were drawn ``until`` a precision.
    ``random_quantiles [3, steps+1]`` are the 5 %, 50 % and 95 % of random orders at each step (no rows without any).
    ``resampled_areas [resamples, m]`` are D_i of m of the samples under the orders of the resampled rankings (no rows
    without any), ``resampled_ascending_areas`` those of the reverse orders.
    """

    name: str
    scores: Tensor
    order: Tensor
    n_ablated: Tensor
    values: Tensor
    ascending_values: Tensor
    target: Tensor
    z: float
    p_raw: float
    p_exact: float
    p: float
    ties: int
    random_quantiles: Tensor
    provenance: Provenance
    resampled_areas: Tensor = NEVER.areas
    resampled_ascending_areas: Tensor = NEVER.ascending_areas

    @classmethod
    def of(
        cls,
        name: str,
        scores: Tensor,
        order: Tensor,
        n_ablated: Tensor,
        values: Tensor,
        ascending_values: Tensor,
        target: Tensor,
        null: Tensor,
        random_quantiles: Tensor,
        provenance: Provenance,
        again: RankedAgain = NEVER,
    ) -> DeficitCurve:
        """Return the curve of a ranking, held against ``null [orders]``, the gaps of random orders; alone, so far."""
        fraction = n_ablated.to(torch.float64) / len(order)
        gap = deficit_areas(values, fraction).mean() - deficit_areas(ascending_values, fraction).mean()
        z, p_raw, p_exact = against_chance(float(gap), null.numpy())
        if provenance.withholds_p(name):
            p_raw = p_exact = float("nan")
        ties = len(order) - len(torch.unique(scores[order]))
        return cls(
            name,
            scores,
            order,
            n_ablated,
            values,
            ascending_values,
            target,
            z,
            p_raw,
            p_exact,
            p_raw,
            ties,
            random_quantiles,
            provenance,
            again.areas,
            again.ascending_areas,
        )

    @property
    def fraction(self) -> Tensor:
        """Fraction of the units that is ablated at each step, ``[steps+1]``."""
        return self.n_ablated.to(torch.float64) / len(self.order)

    @property
    def score(self) -> Tensor:
        """Mean metric at each step of the descending order, ``[steps+1]``."""
        return self.values.mean(dim=1)

    @property
    def ascending_score(self) -> Tensor:
        """Mean metric at each step of the reverse order, ``[steps+1]``."""
        return self.ascending_values.mean(dim=1)

    @property
    def layers(self) -> dict[str, int]:
        """Number of units by layer; the units of several layers count on from one to the next."""
        return dict(self.provenance.layers)

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
        """Labels present, ascending, ``[classes]``.

        Raises:
            ValueError: if the target is not one class per sample.
        """
        return torch.unique(as_target(self.target))

    @property
    def per_class(self) -> Tensor:
        """Mean metric over the samples of each class, ``[classes, steps+1]``."""
        return torch.stack([self.values[:, as_target(self.target) == c].mean(dim=1) for c in self.classes.tolist()])

    @property
    def areas(self) -> Tensor:
        """D_i of the descending order, ``[n]``."""
        return deficit_areas(self.values, self.fraction)

    @property
    def ascending_areas(self) -> Tensor:
        """D_i of the reverse order, ``[n]``."""
        return deficit_areas(self.ascending_values, self.fraction)

    @property
    def gap_areas(self) -> Tensor:
        """Contribution of each sample to the gap: D_i descending minus D_i ascending, ``[n]``."""
        return self.areas - self.ascending_areas

    @property
    def deletion(self) -> float:
        """Mean D_i of the descending order: how fast the metric falls when the top units go first."""
        return float(self.areas.mean())

    @property
    def insertion(self) -> float:
        """Minus the mean D_i of the reverse order, which read backwards keeps only the top units."""
        return -float(self.ascending_areas.mean())

    @property
    def gap(self) -> float:
        """Deletion plus insertion, the headline: larger means that the ranking finds the units that matter."""
        return float(self.gap_areas.mean())

    @property
    def deletion_interval(self) -> Interval:
        """95 % interval over samples, and over ranking data where they were resampled.

        Student's t; ``statistics.intervals.bounded_interval`` of a bounded metric such as accuracy, which holds where
        few samples change; the confidence sequence where samples were drawn ``until``. The part of the ranking is that
        of ``statistics.ranking_noise``.
        """
        return self._interval(self.areas, self.resampled_areas)

    @property
    def insertion_interval(self) -> Interval:
        """95 % interval, as that of deletion."""
        return self._interval(-self.ascending_areas, -self.resampled_ascending_areas)

    @property
    def gap_interval(self) -> Interval:
        """95 % interval, as that of deletion."""
        return self._interval(self.gap_areas, self.resampled_gap_areas)

    @property
    def resampled_gap_areas(self) -> Tensor:
        """Contributions to the gap under the orders of the resampled rankings, ``[resamples, m]``."""
        return self.resampled_areas - self.resampled_ascending_areas

    @property
    def sampled(self) -> Sampled | None:
        """Random draw of the samples, if ``until`` was asked for."""
        return self.provenance.sampled

    def _interval(self, values: Tensor, resampled: Tensor) -> Interval:
        if self.sampled is not None:
            return self.sampled.interval(values.numpy())
        bounds = self.provenance.bounds
        noise = RankingNoise.of(resampled.numpy())
        return interval_with(noise, values.numpy(), None if bounds is None else bounds[1] - bounds[0])

    @property
    def engine(self) -> str:
        """Execution that computed the outputs: "graph (...)", "closed form" or "hook loop (reason)"."""
        return self.provenance.engine

    @property
    def in_sample(self) -> bool:
        """Tell whether the ranking was made on the very data that it is evaluated on."""
        return self.provenance.in_sample

    def top(self, k: int) -> Tensor:
        """Return the ``k`` most important units, ``[k]``, most important first."""
        if not 0 <= k <= len(self.order):
            raise ValueError(f"k must be between 0 and the number of units, {len(self.order)}; got {k}")
        return self.order[:k]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per direction and step: method, direction, n_ablated, fraction, score, low, high, deficit."""
        directions = {"descending": self.values, "ascending": self.ascending_values}
        return pd.concat([self._direction(name, values) for name, values in directions.items()], ignore_index=True)

    @property
    def random_band(self) -> pd.DataFrame:
        """Quantiles of random orders, one row per step: fraction, low, median, high; no rows without random orders."""
        band = self.random_quantiles.numpy()
        columns = dict(zip(("low", "median", "high"), band, strict=False))
        return pd.DataFrame({"fraction": self.fraction.numpy()[: band.shape[1] if len(band) else 0], **columns})

    def plot(self, ax: Any = None) -> Any:
        """Draw the curve with its band, the reverse order dashed and random orders in grey; return the axes."""
        return plots.deficit_curves(
            self.to_frame(),
            self.random_band,
            orders=self.provenance.n_random,
            title=self.setting,
            notes=plot_notes(self.notes, self.provenance),
            metric=self.provenance.metric,
            ax=ax,
        )

    @property
    def setting(self) -> str:
        """Layer, reference, metric and data, in a line; what it says of methods is of this one."""
        return self._own.setting

    @property
    def _own(self) -> Provenance:
        """The provenance as if this method had been the only one."""
        one, every = self.name, self.provenance
        kinds = {one: every.methods[one]} if one in every.methods else {}
        reasons = {one: every.order_only[one]} if one in every.order_only else {}
        return replace(every, methods=Frozen(kinds), order_only=Frozen(reasons))

    @property
    def notes(self) -> list[str]:
        """Sentences to read before the numbers: chance accuracy, few steps, all ties, a gap of 0."""
        found = tie_notes({self.name: self.ties}, len(self.order)) or gap_notes([self.gap])
        return [*self.setting_notes, *order_only_notes(self._own), *found]

    @property
    def setting_notes(self) -> list[str]:
        """Sentences of the setting, whatever the method: samples ranked on, chance accuracy, few steps."""
        about = self.provenance
        return [*overlap_notes(about), *self.chance_notes, *step_notes(self.n_ablated), *layer_notes(about)]

    @property
    def chance_notes(self) -> list[str]:
        """A sentence where the intact network is no better than chance, by accuracy: else none."""
        return chance_notes(self.values[0], self.target, self.provenance.metric)

    def __repr__(self) -> str:
        low, high = self.gap_interval
        interval = "" if np.isnan([low, high]).all() else f" [{low:.3f}, {high:.3f}]"
        return (
            f"DeficitCurve({self.name!r}: gap {self.gap:.3f}{interval}, deletion {self.deletion:.3f}, "
            f"insertion {self.insertion:.3f}; {'; '.join([self.setting, *self.notes])})"
        )

    def _bands(self, values: Floats) -> tuple[Floats, Floats]:
        """Return the ends of the interval of each step's mean, ``[steps+1]``, for ``values [steps+1, n]``."""
        if self.sampled is not None:
            return self.sampled.bands(values)
        bounds = self.provenance.bounds
        return mean_bands(values) if bounds is None else bounded_bands(values, bounds)

    def _direction(self, direction: str, values: Tensor) -> pd.DataFrame:
        mean = values.mean(dim=1).numpy()
        low, high = self._bands(values.numpy())
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
