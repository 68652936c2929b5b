"""Samples at which a class's logit is neither high nor low: the mid-range of O'Mahony et al."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from captum_ablate.diagnostics import pictures_of_logits
from captum_ablate.diagnostics.labelled import logits_and_target

Mode = Literal["between_modes", "quantile", "range"]

BANDS: dict[str, tuple[float, float]] = {
    "between_modes": (0.25, 0.75),
    "quantile": (0.35, 0.65),
    "range": (0.35, 0.65),
}
"""The band of each mode where none is given, as fractions of what the mode measures by."""


@dataclass(frozen=True, eq=False)
class MidRange:
    """For every class, the samples whose logit of that class lies in its band ``low..high``, ends included.

    ``classes [k]`` are the labels present, ``low [k]``, ``high [k]`` their bands, ``indices`` k ascending index arrays.
    """

    logits: Tensor
    target: Tensor
    classes: Tensor
    low: Tensor
    high: Tensor
    indices: tuple[Tensor, ...]
    mode: Mode
    band: tuple[float, float]

    def __getitem__(self, label: int) -> Tensor:
        """Return the indices of the samples in the mid-range of the class ``label``."""
        found = (self.classes == label).nonzero().flatten()
        if not len(found):
            raise KeyError(f"no sample has the label {label}; the labels present are {self.classes.tolist()}")
        return self.indices[int(found)]

    @property
    def unique(self) -> Tensor:
        """Samples in the mid-range of at least one class, each once, ascending."""
        return torch.unique(torch.cat(self.indices))

    @property
    def mask(self) -> Tensor:
        """Whether a sample is in the mid-range of at least one class, ``[n]``."""
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
        """Draw for each class the logits of its own samples and of the others, with the band; return the figure."""
        return pictures_of_logits.bands(self)

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

    O'Mahony, Nikolov and O'Sullivan (WACV 2025, arXiv 2411.10019) look at mid-range logits; the abstract that we had
    does not define them, so the three modes are ours. With ``band=(a, b)``, fractions of 1:

    - "quantile": between the a and b quantiles of the logit over all samples. With many balanced classes that is
      where *confident negatives* lie, because most samples are of other classes.
    - "range": between ``min + a (max - min)`` and ``min + b (max - min)`` of the logit.
    - "between_modes": the same, from the median of the other classes' samples to the median of the class's own.

    ``logits [n, classes]`` are raw outputs, not probabilities: the softmax squeezes the middle. Choose mid-range
    samples on held-out data where the network fits its training data: few training samples are then in between.
    """
    logits, target = logits_and_target(logits, target)
    if mode not in BANDS:
        raise ValueError(f"mode must be one of {', '.join(map(repr, BANDS))}; got {mode!r}")
    band = BANDS[mode] if band is None else (float(band[0]), float(band[1]))
    if not 0 <= band[0] < band[1] <= 1:
        raise ValueError(f"band must be two fractions, 0 <= low < high <= 1; got {band}")
    classes = torch.unique(target)
    if mode == "between_modes" and len(classes) < 2:
        raise ValueError(
            f"mode 'between_modes' compares the samples of a class with the others, and all have the label "
            f'{int(classes[0])}; bring other classes, or take mode="quantile" or mode="range"'
        )
    ends = torch.tensor([_ends(logits[:, c], target == c, mode, band) for c in classes.tolist()], dtype=torch.float64)
    inside = (logits[:, classes] >= ends[:, 0]) & (logits[:, classes] <= ends[:, 1])  # [n, k]
    indices = tuple(column.nonzero().flatten() for column in inside.T)
    return MidRange(logits, target, classes, ends[:, 0], ends[:, 1], indices, mode, band)


def _ends(logit: Tensor, own: Tensor, mode: Mode, band: tuple[float, float]) -> tuple[float, float]:
    """Return the band of one class's ``logit [n]``; ``own [n]`` tells the samples of the class."""
    values = logit.numpy()
    if mode == "quantile":
        low, high = np.quantile(values, band)
        return float(low), float(high)
    start, end = values.min(), values.max()
    if mode == "between_modes":
        others, members = np.median(values[~own.numpy()]), np.median(values[own.numpy()])
        start, end = min(others, members), max(others, members)  # an output may be wrong about its class
    return float(start + band[0] * (end - start)), float(start + band[1] * (end - start))
