"""Which samples to retrain a last layer on, chosen by their mid-range logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_ablate.diagnostics import pictures_of_logits
from captum_ablate.diagnostics.labelled import labels, same_length
from captum_ablate.diagnostics.midrange import MidRange, Mode, midrange

Minority = Literal["none", "error", "group"]


@dataclass(frozen=True, eq=False)
class Curation:
    """Samples to retrain on: ``chosen`` mid-range samples, and ``companions`` from outside of the mid-range.

    Both are ascending index arrays. Group labels were used for the choice only where ``minority`` is "group".
    """

    chosen: Tensor
    companions: Tensor
    minority: Minority
    mids: MidRange

    @property
    def indices(self) -> Tensor:
        """All samples to retrain on, ascending."""
        return torch.cat([self.chosen, self.companions]).sort().values

    @property
    def uses_group_labels(self) -> bool:
        """Whether the choice looked at group labels."""
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
        """Draw how many samples of each class were chosen, right or wrong, and accompany them; return the figure."""
        return pictures_of_logits.curation(self.to_frame())

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
    """Return which samples to retrain the last layer on, from ``logits [n, classes]`` of held-out data.

    - ``minority="none"``: every sample in the mid-range of some class, and no companions; no group labels.
    - "error": of these, the samples that the network gets wrong; no group labels.
    - "group": of these, the samples of minority groups; ``groups [n]`` are attributes, or groups, and a pair of
      class and group is a minority if it has less than its even share of its class.

    For "error" and "group", as many companions of the same class (where there are enough) are drawn at random from the
    samples that are neither in the mid-range nor a minority: a layer trained on the minority alone would learn the
    opposite of the shortcut. After the file names in the authors' repository, which retrains on both
    kinds (O'Mahony et al., arXiv 2411.10019); the rule itself is ours.
    """
    if minority not in ("none", "error", "group"):
        raise ValueError(f'minority must be "none", "error" or "group"; got {minority!r}')
    if (groups is not None) != (minority == "group"):
        raise ValueError(
            'groups are looked at only with minority="group", which needs them: one integer per sample, [n]; '
            f"got minority={minority!r} and groups {'missing' if groups is None else 'given'}"
        )
    mids = midrange(logits, target, mode=mode, band=band)
    nobody = torch.zeros(0, dtype=torch.int64)
    if minority == "none":
        return Curation(mids.unique, nobody, minority, mids)
    rare = mids.logits.argmax(dim=1) != mids.target if minority == "error" else minority_groups(mids.target, groups)
    chosen = mids.mask & rare
    others = ~mids.mask & ~rare
    generator = torch.Generator().manual_seed(seed)
    companions = [nobody]
    for c in mids.classes.tolist():
        pool = (others & (mids.target == c)).nonzero().flatten()
        wanted = int((chosen & (mids.target == c)).sum())
        companions.append(pool[torch.randperm(len(pool), generator=generator)[:wanted]])
    return Curation(chosen.nonzero().flatten(), torch.cat(companions).sort().values, minority, mids)


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
