"""Do units back each other up: how much more a network loses than the deficits of single units, added up, predict."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from captum_ablate.evaluation.curve import DeficitCurve
from captum_ablate.evaluation.labels import label
from captum_ablate.evaluation.plots import COLOURS, DARK_GREY, frame_lightly
from captum_ablate.inputs.values import as_real
from captum_ablate.inputs.wording import visible


@dataclass(frozen=True, eq=False)
class Redundancy:
    """The curve ``score [steps+1]`` at ``fraction [steps+1]``, and ``predicted [steps+1]`` if units were independent.

    All are in units of ``metric``. ``value``, the area between them, is above 0 where units back each other up: alone,
    none is missed, together they are. It is below 0 where units work jointly: each alone is missed as much as all.
    By any metric but "logit" the sign alone is no evidence of either, which ``note`` says.
    """

    fraction: Tensor
    score: Tensor
    predicted: Tensor
    metric: str

    @property
    def value(self) -> float:
        """Area between the prediction and the curve, in units of the metric."""
        return float(torch.trapezoid(self.predicted - self.score, self.fraction))

    @property
    def note(self) -> str:
        """A sentence on how to read ``value``."""
        if self.metric == "logit":
            return "above 0: units back each other up; below: they work jointly"
        return (
            f"by {visible(self.metric.replace('_', ' '))} the sign alone is no evidence: units that only add up in the "
            "logits have a value other than 0, too; additive_redundancy compares with those"
        )

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
        ax.set_ylabel(label(self.metric.replace("_", " ")))
        frame_lightly(ax, f"Redundancy {self.value:+.3f}", "y", "\n".join(wrap(self.note, 70)))
        ax.legend(frameon=False, fontsize="small")
        return ax

    def __repr__(self) -> str:
        return f"Redundancy({self.value:+.3f} by {self.metric}; {self.note})"


def redundancy(curve: DeficitCurve, single_unit_deficits: Tensor, *, floor: float | None = None) -> Redundancy:
    r"""Return the area between the independent-sum prediction from ``single_unit_deficits [units]`` and ``curve``.

    .. math:: \hat{s}_k = \max\Big(s_\mathrm{floor},\; s_0 - \sum_{j \le k} d_{\pi_j}\Big), \qquad
              R = \int_0^1 (\hat{s}(f) - s(f))\, df

    for the curve's order :math:`\pi`. The rule is ours; Amjad, Liu and Geiger (IEEE TNNLS 2022, arXiv 1804.06679) use
    the curves to form such hypotheses. A network that fails with its first unit is at the floor at once, as predicted,
    so joint work shows only above it.

    The prediction is exact for the logit, which is linear in the units of a last layer. Accuracy falls at a threshold:
    independent units with an additive head read +0.13 on one network and -0.30 on another. ``additive_redundancy``
    compares with such a head, and has an interval.

    Args:
        curve: the deficit curve of any order of the units.
        single_unit_deficits: ``[units]``, measured as the curve is: same metric, reference and data. Those are the
            scores of ``LayerUnitAblation(model, layer, reference=..., metric=...)``.
        floor: what the score cannot fall below, by default the score with every unit ablated. For accuracy that is
            chance, as measured.

    Raises:
        ValueError: if the deficits have another shape, or are not finite.

    Example:
        >>> import torch
        >>> from captum_ablate import CumulativeAblationEvaluator, LayerUnitAblation
        >>> from captum_ablate.studies import redundancy
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)).eval()
        >>> data = torch.randn(30, 4), torch.arange(30) % 2
        >>> deficits = LayerUnitAblation(model, "1", metric="logit").attribute(data[0], target=data[1])
        >>> curve = CumulativeAblationEvaluator(model, "1", metric="logit", steps=None).evaluate(deficits, data)
        >>> abs(redundancy(curve, deficits, floor=-100.0).value) < 1e-5  # logits are linear in the units
        True
    """
    deficits = as_real(single_unit_deficits, "single_unit_deficits")
    units = len(curve.scores)
    if deficits.shape != (units,):
        raise ValueError(
            f"single_unit_deficits must have one value for each of the {units} units of the curve; got shape "
            f"{tuple(deficits.shape)}"
        )
    if not bool(torch.isfinite(deficits).all()):
        raise ValueError("single_unit_deficits must be finite; got NaN or infinite values")
    total = torch.cat([deficits.new_zeros(1), deficits[curve.order].cumsum(0)])  # [live+1]
    score = curve.score
    lowest = float(score[-1]) if floor is None else floor
    predicted = (score[0] - total[curve.n_ablated]).clamp(min=lowest)
    return Redundancy(curve.fraction, score, predicted, curve.provenance.metric)
