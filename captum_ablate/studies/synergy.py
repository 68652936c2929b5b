"""Synergy of pairs of units: what two tell about the class together beyond what each tells alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from torch import Tensor
from torch.nn.functional import one_hot

from captum_ablate.evaluation.plots import frame_lightly, subtitle
from captum_ablate.inputs.warnings import warn
from captum_ablate.studies.quantised import Threshold, codes_of, edges_of
from captum_ablate.studies.table import checked_table

BIAS_BITS = 0.1
"""A larger expected bias of the plug-in estimate would pass for synergy."""


@dataclass(frozen=True, eq=False)
class PairwiseSynergy:
    """``synergy [units, units]`` in bits; ``joint [units, units]`` is I(Tu,Tv;Y), ``single [units]`` I(Tu;Y).

    Above 0 the pair is synergistic, below redundant; the diagonal, a unit with its own copy, is -I(Tu;Y).
    """

    joint: Tensor
    single: Tensor

    @property
    def synergy(self) -> Tensor:
        """I(Tu,Tv;Y) - I(Tu;Y) - I(Tv;Y), bits, ``[units, units]``."""
        return self.joint - self.single[:, None] - self.single

    def to_frame(self) -> pd.DataFrame:
        """Return one row per pair u < v: unit, other, joint, synergy."""
        unit, other = torch.triu_indices(len(self.single), len(self.single), offset=1)
        columns = {"unit": unit, "other": other, "joint": self.joint[unit, other], "synergy": self.synergy[unit, other]}
        return pd.DataFrame({name: column.numpy() for name, column in columns.items()})

    def plot(self, ax: Any = None) -> Any:
        """Draw the matrix, units by their information from high to low, the diagonal left out; return the axes."""
        if ax is None:
            _, ax = plt.subplots(figsize=(6.4, 5.4), layout="constrained")
        order = self.single.argsort(descending=True)
        matrix = self.synergy[order][:, order].numpy().copy()
        np.fill_diagonal(matrix, np.nan)
        most = max(float(np.nanmax(np.abs(matrix), initial=0.0)), 1e-9)
        image = ax.imshow(matrix, cmap="RdBu", vmin=-most, vmax=most, interpolation="nearest")
        ax.figure.colorbar(image, ax=ax, label="synergy (bits): blue > 0, red < 0 is redundancy", shrink=0.85)
        ax.set_xlabel("unit, most informative first")
        ax.set_ylabel("unit, most informative first")
        frame_lightly(ax, f"Synergy of pairs of {len(self.single):,} units", "y")
        ax.grid(False)
        pairs = self.to_frame()["synergy"]
        subtitle(ax, f"{(pairs > 0).mean():.0%} of {len(pairs):,} pairs are synergistic")
        return ax


def pairwise_synergy(
    activations: Tensor,
    target: Any,
    *,
    threshold: Threshold = None,
    bins: int | None = None,
    edges: str = "width",
    bias_correction: bool = False,
) -> PairwiseSynergy:
    r"""Return the synergy of every pair of units of ``activations [n, units]`` about ``target [n]``, in bits:

    .. math:: I(T_u, T_v; Y) - I(T_u; Y) - I(T_v; Y)

    Two fair bits whose XOR is the class give exactly +1, a copied bit minus its information. Plug-in estimates under
    the quantiser of ``LayerMutualInformation``; a pair has bins squared cells, so its estimate is biased upwards, by
    :math:`(B'-1)(C'-1) / (2N \ln 2)` for B' cells and C' classes that occur, which ``bias_correction`` subtracts
    (from single units too). Few bins are wise. Our reading of what the ablation curves of Amjad, Liu and Geiger (IEEE
    TNNLS 2022) suggest; the measure is the interaction information of Y with the pair.
    """
    table = checked_table(activations, target)
    found = edges_of(table, threshold, bins, edges)
    codes, values = codes_of(table, found), found.shape[-1] + 1
    n, units = codes.shape
    flat = one_hot(codes, values).reshape(n, units * values).to(torch.float64)  # [n, units * values]
    pair_entropy, cells = _cells(flat.T @ flat, n, units, values)
    joint = pair_entropy.clone()
    classes = table.classes
    p_class = torch.stack([(table.target == c).double().mean() for c in classes])
    for c, p in zip(classes, p_class, strict=True):
        one = flat[table.target == c]
        joint -= p * _cells(one.T @ one, len(one), units, values)[0]
    bias = (cells - 1) * (len(classes) - 1) / (2 * n * log(2))
    joint = joint.clamp(min=0)  # rounding
    if bias_correction:
        joint = joint - bias
    elif units > 1 and float(bias.max()) > BIAS_BITS:
        warn(
            f"with {values} values per unit and {n} samples the information of a pair is overestimated by up to about "
            f"{float(bias.max()):.2f} bit, which passes for synergy; use fewer bins (threshold=), more samples, or "
            "bias_correction=True"
        )
    return PairwiseSynergy(joint, joint.diagonal().clone())


def _cells(counts: Tensor, n: int, units: int, values: int) -> tuple[Tensor, Tensor]:
    """Return the joint entropy of each pair (bits) and how many of its cells occur, each ``[units, units]``."""
    table = counts.reshape(units, values, units, values)
    return torch.special.entr(table / n).sum(dim=(1, 3)) / log(2), (table > 0).sum(dim=(1, 3))
