"""Samples at which a class's logit is neither high nor low, the mid-range, and a choice of them to retrain on.

After O'Mahony, Nikolov and O'Sullivan (WACV 2025, arXiv 2411.10019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_ablate.diagnostics import pictures
from captum_ablate.diagnostics.labelled import labels, logits_and_target, same_length

Mode = Literal["between_modes", "quantile", "range"]
Minority = Literal["none", "error", "group"]

BANDS: dict[str, tuple[float, float]] = {
    "between_modes": (0.25, 0.75),
    "quantile": (0.35, 0.65),
    "range": (0.35, 0.65),
}
"""The default band of each mode, in fractions of the range that the mode measures."""


@dataclass(frozen=True, eq=False)
class MidRange:
    """For every class, the samples whose logit of that class lies in its band ``low..high``, ends included.

    ``classes [k]`` are the labels present, ``low [k]`` and ``high [k]`` their bands, in units of the logit.
    ``indices`` are k ascending arrays of samples.
    """

    logits: Tensor
    target: Tensor
    classes: Tensor
    low: Tensor
    high: Tensor
    indices: tuple[Tensor, ...]
    mode: Mode
    band: tuple[float, float]

    @classmethod
    def of(cls, logits: Tensor, target: Tensor, mode: Mode, band: tuple[float, float]) -> MidRange:
        """Find the samples of checked ``logits [n, classes]`` that lie in the band of each label of ``target [n]``."""
        classes = torch.unique(target)
        ends = torch.tensor(
            [_ends(logits[:, c], target == c, mode, band) for c in classes.tolist()], dtype=torch.float64
        )
        inside = (logits[:, classes] >= ends[:, 0]) & (logits[:, classes] <= ends[:, 1])  # [n, k]
        indices = tuple(column.nonzero().flatten() for column in inside.T)
        return cls(logits, target, classes, ends[:, 0], ends[:, 1], indices, mode, band)

    def __getitem__(self, label: int) -> Tensor:
        """Return the indices of the samples in the mid-range of the class ``label``."""
        position = (self.classes == label).nonzero().flatten()
        if not len(position):
            raise KeyError(f"no sample has the label {label}; the labels present are {self.classes.tolist()}")
        return self.indices[int(position)]

    @property
    def unique(self) -> Tensor:
        """Samples in the mid-range of at least one class, each once, ascending."""
        return torch.unique(torch.cat(self.indices))

    @property
    def mask(self) -> Tensor:
        """Samples in the mid-range of at least one class, bool ``[n]``."""
        inside = torch.zeros(len(self.target), dtype=torch.bool)
        inside[self.unique] = True
        return inside

    def to_frame(self) -> pd.DataFrame:
        """Return one row per class and sample in its band: output, sample, logit, target, prediction."""
        predictions = self.logits.argmax(dim=1)
        rows = [
            pd.DataFrame(
                {
                    "output": int(c),
                    "sample": index.numpy(),
                    "logit": self.logits[index, int(c)].numpy(),
                    "target": self.target[index].numpy(),
                    "prediction": predictions[index].numpy(),
                }
            )
            for c, index in zip(self.classes, self.indices, strict=True)
        ]
        return pd.concat(rows, ignore_index=True)

    def plot(self) -> Any:
        """Draw the logit of each class, for its own samples and the others, with the band; return the figure."""
        ends, inside = torch.stack([self.low, self.high], dim=1), [len(found) for found in self.indices]
        return pictures.bands(self.logits, self.target, self.classes, ends, inside, self.mode)

    def __repr__(self) -> str:
        per_class = ", ".join(f"{int(c)}: {len(i)}" for c, i in zip(self.classes, self.indices, strict=True))
        return (
            f"MidRange({len(self.unique)} of {len(self.target)} samples, mode {self.mode!r}, band {self.band}; "
            f"per class {per_class})"
        )


def midrange(
    logits: Any, target: Any, *, mode: Mode = "between_modes", band: tuple[float, float] | None = None
) -> MidRange:
    r"""Return the samples in the mid-range of each class's logit, :math:`M_c = \{i : lo_c \le l_{ic} \le hi_c\}`.

    O'Mahony et al. (arXiv 2411.10019) examine mid-range logits. Their abstract, all that we had, does not define them,
    so the three modes are ours. With ``band=(a, b)``, fractions of 1, the band of a class lies

    - "quantile": between the a and b quantiles of the logit over all samples. With many balanced classes these are
      *confident negatives*, because most samples are of other classes.
    - "range": between ``min + a (max - min)`` and ``min + b (max - min)`` of the logit.
    - "between_modes": the same, from the median of the other classes' samples to the median of the class's own.

    Use held-out data where the network fits its training data: few training samples are then in between.

    Args:
        logits: ``[n, classes]``, raw outputs and not probabilities, because the softmax squeezes the middle.
        target: ``[n]`` integer labels, columns of ``logits``.
        band: by default (0.25, 0.75) for "between_modes" and (0.35, 0.65) for the others.

    Raises:
        ValueError: if logits and labels do not fit each other, ``mode`` or ``band`` is wrong, or "between_modes" gets
            one class only.

    Example:
        >>> import torch
        >>> from captum_ablate import midrange
        >>> first = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
        >>> mids = midrange(torch.stack([first, -first], dim=1), [1, 1, 0, 0, 0], mode="range")
        >>> mids.unique.tolist()
        [2]
    """
    logits, target = logits_and_target(logits, target)
    if mode not in BANDS:
        raise ValueError(f"mode must be one of {', '.join(map(repr, BANDS))}; got {mode!r}")
    band = BANDS[mode] if band is None else (float(band[0]), float(band[1]))
    if not 0 <= band[0] < band[1] <= 1:
        raise ValueError(f"band must be two fractions, 0 <= low < high <= 1; got {band}")
    if mode == "between_modes" and bool((target == target[0]).all()):
        raise ValueError(
            f"mode 'between_modes' compares the samples of a class with the others, and all have the label "
            f'{int(target[0])}; add samples of other classes, or pass mode="quantile" or mode="range"'
        )
    return MidRange.of(logits, target, mode, band)


@dataclass(frozen=True, eq=False)
class Curation:
    """Samples to retrain on: ``chosen`` mid-range samples, and ``companions`` from outside the mid-range.

    Both are ascending index arrays. The choice used group labels only where ``minority`` is "group".
    """

    chosen: Tensor
    companions: Tensor
    minority: Minority
    mids: MidRange

    @classmethod
    def of(cls, mids: MidRange, rare: Tensor, minority: Minority, seed: int) -> Curation:
        """Choose the mid-range samples that are ``rare [n]``, and draw as many companions of each class."""
        chosen, others = mids.mask & rare, ~mids.mask & ~rare
        generator = torch.Generator().manual_seed(seed)
        companions = []
        for c in mids.classes.tolist():
            pool = (others & (mids.target == c)).nonzero().flatten()
            count = int((chosen & (mids.target == c)).sum())
            companions.append(pool[torch.randperm(len(pool), generator=generator)[:count]])
        return cls(chosen.nonzero().flatten(), torch.cat(companions).sort().values, minority, mids)

    @property
    def indices(self) -> Tensor:
        """All samples to retrain on, ascending."""
        return torch.cat([self.chosen, self.companions]).sort().values

    @property
    def uses_group_labels(self) -> bool:
        """Tell whether the choice used group labels."""
        return self.minority == "group"

    def to_frame(self) -> pd.DataFrame:
        """Return one row per sample to retrain on: sample, role (chosen or companion), target, prediction."""
        roles = torch.zeros(len(self.mids.target), dtype=torch.bool)
        roles[self.companions] = True
        index = self.indices
        return pd.DataFrame(
            {
                "sample": index.numpy(),
                "role": np.where(roles[index].numpy(), "companion", "chosen"),
                "target": self.mids.target[index].numpy(),
                "prediction": self.mids.logits[index].argmax(dim=1).numpy(),
            }
        )

    def plot(self) -> Any:
        """Draw the number of samples by class: chosen and wrong, chosen and right, companions; return the figure."""
        return pictures.curation(self.to_frame())

    def __len__(self) -> int:
        return len(self.chosen) + len(self.companions)

    def __repr__(self) -> str:
        return (
            f"Curation({len(self.chosen)} mid-range samples (minority {self.minority!r}) and {len(self.companions)} "
            f"companions of {len(self.mids.target)} samples)"
        )


def curate_midrange(
    logits: Any,
    target: Any,
    *,
    minority: Minority = "none",
    groups: Any = None,
    mode: Mode = "between_modes",
    band: tuple[float, float] | None = None,
    seed: int = 0,
) -> Curation:
    """Return which samples to retrain the last layer on.

    - ``minority="none"``: every sample in the mid-range of some class, and no companions; no group labels.
    - "error": of these, the samples that the network gets wrong; no group labels.
    - "group": of these, the samples of minority groups. A pair of class and group is a minority if it has less than
      its even share of its class.

    "error" and "group" add as many companions of the same class (where there are enough). They are drawn at random from
    the samples neither in the mid-range nor a minority. A layer trained on the minority alone would learn the opposite
    of the shortcut. After the file names in the authors' repository, which retrains on both kinds (O'Mahony et al.,
    arXiv 2411.10019); the rule itself is ours.

    Args:
        logits: ``[n, classes]`` of held-out data.
        target: ``[n]`` integer labels.
        groups: ``[n]`` integer attributes or groups, for ``minority="group"`` only.

    Raises:
        ValueError: as ``midrange`` does, or if ``minority`` and ``groups`` do not go together.

    Example:
        >>> import torch
        >>> from captum_ablate import curate_midrange
        >>> first = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
        >>> curate_midrange(torch.stack([first, -first], dim=1), [1, 1, 0, 0, 0], mode="range").indices.tolist()
        [2]
    """
    if minority not in ("none", "error", "group"):
        raise ValueError(f'minority must be "none", "error" or "group"; got {minority!r}')
    if (groups is not None) != (minority == "group"):
        raise ValueError(
            'minority="group" needs groups, one integer per sample [n], and nothing else uses them; '
            f"got minority={minority!r} and groups {'missing' if groups is None else 'given'}"
        )
    mids = midrange(logits, target, mode=mode, band=band)
    if minority == "none":
        return Curation(mids.unique, mids.unique[:0], minority, mids)
    rare = mids.logits.argmax(dim=1) != mids.target if minority == "error" else minority_groups(mids.target, groups)
    return Curation.of(mids, rare, minority, seed)


def minority_groups(target: Any, groups: Any) -> Tensor:
    """Return whether each sample's group has less than its even share of the samples of its class, ``[n]``."""
    target, groups = labels(target, "target"), labels(groups, "groups")
    same_length(target=target, groups=groups)
    rare = torch.zeros(len(target), dtype=torch.bool)
    for c in torch.unique(target).tolist():
        own = target == c
        kinds, counts = torch.unique(groups[own], return_counts=True)
        rare |= own & torch.isin(groups, kinds[counts * len(kinds) < own.sum()])
    return rare


def _ends(logit: Tensor, own: Tensor, mode: Mode, band: tuple[float, float]) -> tuple[float, float]:
    """Return the band of one class's ``logit [n]``; ``own [n]`` marks the samples of the class."""
    values = logit.numpy()
    if mode == "quantile":
        low, high = np.quantile(values, band)
        return float(low), float(high)
    start, end = values.min(), values.max()
    if mode == "between_modes":
        others, members = np.median(values[~own.numpy()]), np.median(values[own.numpy()])
        start, end = min(others, members), max(others, members)  # an output may be wrong about its class
    return float(start + band[0] * (end - start)), float(start + band[1] * (end - start))
