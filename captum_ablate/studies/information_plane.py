"""The information plane of a layer: what each unit tells at all, against what it tells about the class."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from captum_ablate.evaluation.plots import COLOURS, DARK_GREY, frame_lightly, subtitle
from captum_ablate.studies.quantised import Threshold, edges_of, histogram_of
from captum_ablate.studies.table import checked_table


@dataclass(frozen=True, eq=False)
class InformationPlane:
    """``entropy``, ``information`` and ``kl_selectivity [units]`` in bits, ``best_class [units]``, ``classes``.

    ``best_class`` is the class that KL selectivity chose. ``class_entropy`` is H(Y), the most that a unit could tell.
    """

    entropy: Tensor
    information: Tensor
    kl_selectivity: Tensor
    best_class: Tensor
    class_entropy: float

    def to_frame(self) -> pd.DataFrame:
        """Return one row per unit: unit, entropy, information, kl_selectivity, best_class."""
        return pd.DataFrame(
            {
                "unit": range(len(self.entropy)),
                "entropy": self.entropy.numpy(),
                "information": self.information.numpy(),
                "kl_selectivity": self.kl_selectivity.numpy(),
                "best_class": self.best_class.numpy(),
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw a point per unit and the bounds I <= H and I <= H(Y); return the axes."""
        if ax is None:
            _, ax = plt.subplots(figsize=(6.0, 5.0), layout="constrained")
        most = max(float(self.entropy.max()), 1e-9)
        ax.plot([0, most], [0, most], color=DARK_GREY, linewidth=1)
        ax.annotate(
            "I = H", (most, most), (-12, 2), textcoords="offset points", ha="right", va="center", fontsize="small"
        )
        if self.class_entropy < most:
            ax.axhline(self.class_entropy, color=DARK_GREY, linewidth=1, linestyle=":")
            ax.annotate("H(Y)", (0, self.class_entropy), (2, 2), textcoords="offset points", fontsize="small")
        ax.plot(self.entropy, self.information, "o", color=COLOURS[0], markersize=5, alpha=0.6, markeredgewidth=0)
        ax.set_xlabel("entropy H(T) (bits)")
        ax.set_ylabel("information about the class I(T;Y) (bits)")
        ax.set_xlim(left=-0.02 * most)
        ax.set_ylim(bottom=-0.02 * most)
        frame_lightly(ax, f"Information plane of {len(self.entropy):,} units", "y")
        subtitle(ax, "one point per unit")
        return ax


def information_plane(
    activations: Tensor,
    target: Any,
    *,
    threshold: Threshold = None,
    bins: int | None = None,
    edges: str = "width",
) -> InformationPlane:
    r"""Return H(T), I(T;Y) and KL selectivity of each unit of ``activations [n, units]``, ``target [n]``, in bits.

    A quantised unit T is a function of the input X, so :math:`I(T;X) = H(T)`, and the point (H, I) is the unit's place
    in the plane of the information bottleneck (Amjad, Liu and Geiger, IEEE TNNLS 2022, name the link). The estimates
    are plug-in, the quantiser that of ``LayerMutualInformation``.
    """
    table = checked_table(activations, target)
    histogram = histogram_of(table, edges_of(table, threshold, bins, edges))
    specific = histogram.specific_information  # [classes, units]
    return InformationPlane(
        entropy=torch.special.entr(histogram.p_bin).sum(dim=-1) / log(2),
        information=histogram.p_class @ specific,
        kl_selectivity=specific.amax(dim=0),
        best_class=histogram.classes[specific.argmax(dim=0)],
        class_entropy=float(torch.special.entr(histogram.p_class).sum()) / log(2),
    )
