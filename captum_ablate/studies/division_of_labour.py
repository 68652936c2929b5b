"""Does each unit speak for one side: how often its attributions for an output have the sign that they mostly have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_ablate.evaluation.labels import headed, name_labels
from captum_ablate.evaluation.plots import COLOURS
from captum_ablate.inputs.values import int_or_none
from captum_ablate.inputs.wording import counted
from captum_ablate.studies.sample_scores import sample_scores


@dataclass(frozen=True, eq=False)
class DivisionOfLabour:
    """Number of samples that a unit speaks for, ``positive [units]``, and against, ``negative [units]``, of ``n``.

    A unit's ``share`` is that of its majority sign among its non-zero attributions.
    """

    name: str
    positive: Tensor
    negative: Tensor
    n: int

    @property
    def uses(self) -> Tensor:
        """Samples for which a unit's attribution is not zero, ``[units]``."""
        return self.positive + self.negative

    @property
    def share(self) -> Tensor:
        """Share of the majority sign, ``[units]``, between 1/2 and 1; NaN for a unit that is never used."""
        return torch.maximum(self.positive, self.negative) / self.uses

    @property
    def sign(self) -> Tensor:
        """Majority sign, ``[units]``: 1, -1, or 0 for a draw."""
        return torch.sign(self.positive - self.negative)

    def shares(self, at_least: int = 1) -> Tensor:
        """Return the shares of the units with ``at_least`` so many uses; a share of few uses is large by chance."""
        if at_least < 1:
            raise ValueError(f"at_least must be 1 or more; got {at_least}")
        return self.share[self.uses >= at_least]

    def median(self, at_least: int = 1) -> float:
        """Return the median share of the units with so many uses; NaN if there are none."""
        return float(np.median(self.shares(at_least).numpy())) if len(self.shares(at_least)) else float("nan")

    def to_frame(self) -> pd.DataFrame:
        """Return one row per unit: ``method, unit, positive, negative, share, sign``."""
        columns = {name: getattr(self, name).numpy() for name in ("positive", "negative", "share", "sign")}
        return pd.DataFrame({"method": self.name, "unit": range(len(self.positive)), **columns})

    def plot(self, ax: Any = None) -> Any:
        """Draw the units by the share of samples that they speak for; return the axes."""
        return plot_labour({self.name: self}, ax)

    def __repr__(self) -> str:
        used = int((self.uses > 0).sum())
        return (
            f"DivisionOfLabour({self.name!r}: median share of the majority sign {self.median():.3f} over {used} of "
            f"{counted(len(self.positive), 'unit')}, {counted(self.n, 'sample')})"
        )


def division_of_labour(
    attribution: Any, data: Any, *, target: int, tolerance: float = 0.0, **options: Any
) -> DivisionOfLabour:
    """Return how each unit's attributions for the output ``target`` divide into positive and negative ones.

    After the sentiment network of Dhamdhere, Sundararajan and Yan (arXiv 1805.12233), where most filters were found to
    support one sentiment. The share is ours.

    Where the outputs are linear in the layer, a unit's sign is that of its weight (for conductance, of a unit above its
    value at the baseline). The share is then 1 whatever was learned; look at an earlier layer.

    Args:
        attribution: such as ``LayerConductance(model, layer)``.
        data: ``(inputs, target)``, or an iterable of batches ``(*inputs, labels)``.
        target: index of one output for all samples, because each label's own output would mix sides.
        tolerance: attributions of at most this absolute value count as zero.
        options: those of ``sample_scores``.

    Raises:
        TypeError: if ``target`` is not an index.
        ValueError: if ``tolerance`` is negative, or as ``sample_scores`` does.

    Example:
        >>> import torch
        >>> from captum.attr import LayerConductance
        >>> from captum_ablate import division_of_labour
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)).eval()
        >>> data = torch.randn(30, 4), torch.arange(30) % 2
        >>> division_of_labour(LayerConductance(model, model[1]), data, target=1).share.shape
        torch.Size([6])
    """
    output = int_or_none(target)
    if output is None:
        raise TypeError(f"target must be the index of one output for all samples; got {target!r}")
    scores = sample_scores(attribution, data, target=output, **options)
    return labour_of(scores, tolerance=tolerance, name=type(attribution).__name__)


def labour_of(scores: Tensor, *, tolerance: float = 0.0, name: str = "scores") -> DivisionOfLabour:
    """Return the division of labour of attributions ``scores [n, units]`` for one output.

    Raises:
        ValueError: if ``scores`` has another shape, or ``tolerance`` is negative.

    Example:
        >>> import torch
        >>> from captum_ablate.studies import labour_of
        >>> labour_of(torch.tensor([[1.0, -2.0], [3.0, 1.0], [2.0, -1.0]])).share.tolist()
        [1.0, 0.6666666865348816]
    """
    if scores.ndim != 2:
        raise ValueError(f"scores must be [n, units]; got {tuple(scores.shape)}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be 0 or more; got {tolerance}")
    positive, negative = (scores > tolerance).sum(dim=0), (scores < -tolerance).sum(dim=0)
    return DivisionOfLabour(name, positive, negative, len(scores))


def plot_labour(results: Mapping[str, DivisionOfLabour], ax: Any = None) -> Any:
    """Draw the units of several attributions by the share of uses in which they speak for the output.

    Return the axes.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7.0, 4.2), layout="constrained")
    bins = np.linspace(0, 1, 21)
    for name, result, colour in zip(name_labels(results), results.values(), cycle(COLOURS)):
        used = result.uses > 0
        share = (result.positive[used] / result.uses[used]).numpy()
        label = f"{name}: median majority {result.median():.0%}"
        ax.hist(share, bins=bins, histtype="stepfilled", color=colour, alpha=0.2)
        ax.hist(share, bins=bins, histtype="step", color=colour, linewidth=1.8, label=label)
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of a unit's non-zero attributions that are positive")
    ax.set_ylabel("units")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", linewidth=0.5, alpha=0.4)
    headed(ax, "Division of labour: 0 or 1 = one side only")
    ax.legend(fontsize="small", framealpha=0.9, loc="upper center")
    return ax
