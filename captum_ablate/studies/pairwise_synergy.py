"""Do pairs of units tell more of the class than both alone: the synergy of every pair, or its redundancy."""

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

from captum_ablate.evaluation.plots import frame_lightly
from captum_ablate.inputs.warnings import warn
from captum_ablate.inputs.wording import counted
from captum_ablate.statistics.chance import expected_information
from captum_ablate.studies.quantised_table import QuantisedTable, Threshold

BIAS_BITS = 0.1
"""A larger expected bias of the plug-in estimate would pass for synergy."""


@dataclass(frozen=True, eq=False)
class PairwiseSynergy:
    """Bits that two units tell about the class together, ``joint [units, units]``, and each alone, ``single [units]``.

    ``synergy [units, units]`` is above 0 where the pair is synergistic, below where it is redundant. The diagonal, a
    unit with its own copy, is -I(Tu;Y).
    """

    joint: Tensor
    single: Tensor

    @classmethod
    def of(cls, joint: Tensor) -> PairwiseSynergy:
        """Return the synergy of ``joint [units, units]``, whose diagonal is what each unit tells alone."""
        return cls(joint, joint.diagonal().clone())

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
        pairs = self.to_frame()["synergy"]
        note = f"{(pairs > 0).sum():,} of {counted(len(pairs), 'pair')} synergistic"
        frame_lightly(ax, f"Synergy of pairs of {counted(len(self.single), 'unit')}", "y", note)
        ax.grid(False)
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
    r"""Return the synergy of every pair of units about the class, in bits:

    .. math:: I(T_u, T_v; Y) - I(T_u; Y) - I(T_v; Y)

    Two fair bits whose XOR is the class have exactly +1, a copied bit minus its information. The measure is the
    interaction information of Y with the pair; our reading of what the ablation curves of Amjad, Liu and Geiger (IEEE
    TNNLS 2022, arXiv 1804.06679) suggest.

    Estimates are plug-in, and a pair has bins squared cells, so few bins are wise. The bias is upwards, by about
    :math:`(B'-1)(C'-1) / (2N \ln 2)` for B' cells and C' classes that occur, as long as these are fewer than the
    samples. Warns if it passes for synergy, and where a corrected estimate has more cells than samples.

    Args:
        activations: ``[n, units]``, averaged over positions, such as ``activation_table(...).values``.
        target: class of each sample, ``[n]``.
        threshold: one bit per unit, ``a > threshold``, as in ``LayerMutualInformation``.
        bins: values per unit, as in ``LayerMutualInformation``; instead of ``threshold``.
        edges: bins of equal "width" or equal "mass".
        bias_correction: subtract what labels in a random order would share with the pair and with single units: the
            expectation over all permutations, exactly, as in ``LayerMutualInformation``.

    Raises:
        ValueError: if the table does not fit, is not finite, or holds one class only.

    Example:
        >>> import torch
        >>> from captum_ablate.studies import pairwise_synergy
        >>> bits = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).repeat(30, 1)
        >>> float(pairwise_synergy(bits, [0, 1, 1, 0] * 30, threshold=0.5).synergy[0, 1])
        1.0
    """
    found = QuantisedTable.of(activations, target, threshold, bins, edges)
    codes, values, table = found.codes, found.values, found.table
    n, units = codes.shape
    flat = one_hot(codes, values).reshape(n, units * values).to(torch.float64)  # [n, units * values]
    pairs = _cells(flat.T @ flat, units, values)
    joint = _entropy(pairs, n)
    per_class = torch.unique(table.target, return_counts=True)[1]
    for c, size in zip(table.classes, per_class.tolist(), strict=True):
        one = flat[table.target == c]
        joint -= size / n * _entropy(_cells(one.T @ one, units, values), size)
    joint = joint.clamp(min=0)  # rounding
    if bias_correction or units > 1:
        joint = _corrected(joint, pairs, per_class, values, bias_correction)
    return PairwiseSynergy.of(joint)


def _corrected(joint: Tensor, pairs: Tensor, per_class: Tensor, values: int, bias_correction: bool) -> Tensor:
    """Return ``joint [units, units]`` less what it is by chance if asked; warn where chance passes for synergy."""
    n, most = int(per_class.sum()), int((pairs > 0).sum(-1).max()) * len(per_class)
    about = (most - len(per_class)) * (len(per_class) - 1) / len(per_class) / (2 * n * log(2))  # Miller and Madow
    if not bias_correction and about <= BIAS_BITS:
        return joint
    by_chance = expected_information(pairs.to(torch.int64), per_class)
    largest = float(by_chance.max())
    if not bias_correction:
        if largest > BIAS_BITS:
            warn(
                f"with {values} values per unit and {n} samples the information of a pair is overestimated by up to "
                f"about {largest:.2f} bit, which passes for synergy; use fewer bins (threshold=), more samples, or "
                "bias_correction=True"
            )
        return joint
    if most > n:
        warn(
            f"pairs have up to {most:,} cells (values that occur x {len(per_class)} classes) for {n:,} samples; "
            "corrected for chance their synergy is near 0 on average, but noise: use fewer bins (threshold=) or more "
            "samples"
        )
    return joint - by_chance


def _cells(counts: Tensor, units: int, values: int) -> Tensor:
    """Return how many samples each pair has in each of its cells, ``[units, units, values^2]``."""
    return counts.reshape(units, values, units, values).transpose(1, 2).flatten(2)


def _entropy(cells: Tensor, n: int) -> Tensor:
    """Return the joint entropy of each pair, in bits, ``[units, units]``."""
    return torch.special.entr(cells / n).sum(dim=-1) / log(2)
