"""Draw the information plane of a layer: what each unit tells in all, and about the class."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch import Tensor

from captum_ablate.evaluation.plots import COLOURS, DARK_GREY, frame_lightly
from captum_ablate.inputs.wording import counted
from captum_ablate.statistics.histogram import ClassHistogram
from captum_ablate.studies.quantised_table import QuantisedTable, Threshold


@dataclass(frozen=True, eq=False)
class InformationPlane:
    """Information of each unit ``[units]``: ``entropy`` in all, ``information`` and ``kl_selectivity`` about the class.

    All are in bits. ``best_class [units]`` is the class that KL selectivity chose. ``class_entropy`` is H(Y), the most
    that a unit could tell about the class.
    """

    entropy: Tensor
    information: Tensor
    kl_selectivity: Tensor
    best_class: Tensor
    class_entropy: float

    @classmethod
    def of(cls, histogram: ClassHistogram) -> InformationPlane:
        """Compute the plane from the counts of values by class and unit."""
        specific = histogram.specific_information  # [classes, units]
        return cls(
            entropy=torch.special.entr(histogram.p_bin).sum(dim=-1) / log(2),
            information=histogram.p_class @ specific,
            kl_selectivity=specific.amax(dim=0),
            best_class=histogram.classes[specific.argmax(dim=0)],
            class_entropy=float(torch.special.entr(histogram.p_class).sum()) / log(2),
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per unit: unit, entropy, information, kl_selectivity, best_class."""
        columns = ("entropy", "information", "kl_selectivity", "best_class")
        return pd.DataFrame({"unit": range(len(self.entropy)), **{c: getattr(self, c).numpy() for c in columns}})

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
        frame_lightly(ax, f"Information plane of {counted(len(self.entropy), 'unit')}", "y", "one point per unit")
        return ax


def information_plane(
    activations: Tensor,
    target: Any,
    *,
    threshold: Threshold = None,
    bins: int | None = None,
    edges: str = "width",
) -> InformationPlane:
    r"""Return H(T), I(T;Y) and KL selectivity of each unit, in bits.

    A quantised unit T is a function of the input X, so :math:`I(T;X) = H(T)`. The point (H, I) is therefore the unit's
    place in the plane of the information bottleneck. Amjad, Liu and Geiger (IEEE TNNLS 2022, arXiv 1804.06679) name
    the link. Estimates are plug-in.

    Args:
        activations: ``[n, units]``, averaged over positions, such as ``activation_table(...).values``.
        target: class of each sample, ``[n]``.
        threshold: one bit per unit, ``a > threshold``, as in ``LayerMutualInformation``.
        bins: values per unit, as in ``LayerMutualInformation``; instead of ``threshold``.
        edges: bins of equal "width" or equal "mass".

    Raises:
        ValueError: if the table does not fit, is not finite, or holds one class only.

    Example:
        >>> import torch
        >>> from captum_ablate.studies import information_plane
        >>> plane = information_plane(torch.tensor([[0.0, 3.0], [0.0, 1.0], [2.0, 0.0], [1.0, 2.0]]), [0, 0, 1, 1])
        >>> plane.information.tolist()
        [1.0, 0.31127812445913283]
    """
    return InformationPlane.of(QuantisedTable.of(activations, target, threshold, bins, edges).histogram)
