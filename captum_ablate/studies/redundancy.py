"""Redundancy: how much more a network loses than the deficits of single units, added up, foretell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from captum_ablate.evaluation.curve import DeficitCurve
from captum_ablate.evaluation.plots import COLOURS, DARK_GREY, frame_lightly, subtitle


@dataclass(frozen=True, eq=False)
class Redundancy:
    """The curve ``score [steps+1]`` at ``fraction [steps+1]``, and ``predicted [steps+1]`` if units were independent.

    ``value``, the area between them, is above 0 where units back each other up: alone, none is missed, together they
    are. It is below 0 where units work jointly: each alone is missed as much as all. Both are in units of ``metric``.
    """

    fraction: Tensor
    score: Tensor
    predicted: Tensor
    metric: str

    @property
    def value(self) -> float:
        """Area between the prediction and the curve, in units of the metric."""
        return float(torch.trapezoid(self.predicted - self.score, self.fraction))

    def to_frame(self) -> pd.DataFrame:
        """Return one row per step: fraction, score, predicted."""
        return pd.DataFrame({n: getattr(self, n).numpy() for n in ("fraction", "score", "predicted")})

    def plot(self, ax: Any = None) -> Any:
        """Draw the curve, the prediction and the area between them; return the axes."""
        if ax is None:
            _, ax = plt.subplots(figsize=(7.0, 4.6), layout="constrained")
        ax.plot(self.fraction, self.score, color=COLOURS[0], linewidth=1.8, label="measured")
        ax.plot(self.fraction, self.predicted, "--", color=DARK_GREY, linewidth=1.4, label="single deficits added up")
        ax.fill_between(self.fraction, self.predicted, self.score, color=COLOURS[0], alpha=0.16, linewidth=0)
        ax.set_xlim(0, 1)
        ax.set_xlabel("units ablated (fraction)")
        ax.set_ylabel(self.metric.replace("_", " "))
        frame_lightly(ax, f"Redundancy {self.value:+.3f}", "y")
        subtitle(ax, "above 0: units back each other up; below: they work jointly")
        ax.legend(frameon=False, fontsize="small")
        return ax


def redundancy(curve: DeficitCurve, single_unit_deficits: Tensor, *, floor: float | None = None) -> Redundancy:
    r"""Return the area between the independent-sum prediction from ``single_unit_deficits [units]`` and ``curve``.

    .. math:: \hat{s}_k = \max\Big(s_\mathrm{floor},\; s_0 - \sum_{j \le k} d_{\pi_j}\Big), \qquad
              R = \int_0^1 (\hat{s}(f) - s(f))\, df

    for the curve's order :math:`\pi`. The deficits must be measured as the curve is: same metric, reference and data,
    by ``LayerUnitAblation(model, layer, reference=..., metric=...).attribute(data)``. ``floor`` is what the score
    cannot fall below, by default the score with every unit ablated (for accuracy that is chance, as measured). A
    network that fails with its first unit is at the floor at once, as predicted, so joint work shows only above it.
    The rule is ours; Amjad, Liu and Geiger (IEEE TNNLS 2022) use the curves to form such hypotheses.
    """
    deficits = torch.as_tensor(single_unit_deficits).detach().cpu().to(torch.float64)
    units = len(curve.order)
    if deficits.shape != (units,):
        raise ValueError(
            f"single_unit_deficits must have one value for each of the {units} units of the curve; got shape "
            f"{tuple(deficits.shape)}"
        )
    if not bool(torch.isfinite(deficits).all()):
        raise ValueError("single_unit_deficits must be finite; got NaN or infinite values")
    total = torch.cat([deficits.new_zeros(1), deficits[curve.order].cumsum(0)])  # [units+1]
    score = curve.score
    lowest = float(score[-1]) if floor is None else floor
    predicted = (score[0] - total[curve.n_ablated]).clamp(min=lowest)
    return Redundancy(curve.fraction, score, predicted, str(curve.provenance["metric"]))
