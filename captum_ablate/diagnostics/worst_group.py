"""Accuracy of the worst group, where a group is a class with an attribute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from captum_ablate.diagnostics import pictures
from captum_ablate.diagnostics.labelled import labels, rows, same_length
from captum_ablate.statistics.intervals import LEVEL


@dataclass(frozen=True, eq=False)
class WorstGroupAccuracy:
    """Accuracy ``[g]``, between 0 and 1, in each group: ``groups [g, 2]`` pairs of class and attribute, ``n [g]``.

    ``mean`` is over samples, ``train_weighted`` over groups by their share of the training data (NaN if unknown).
    """

    groups: Tensor
    accuracy: Tensor
    n: Tensor
    mean: float
    train_weighted: float

    @classmethod
    def of(
        cls, predictions: Tensor, target: Tensor, groups: Tensor, train: tuple[Any, Any] | None
    ) -> WorstGroupAccuracy:
        """Count the right ones of checked ``predictions [n]`` in each pair of ``target [n]`` and ``groups [n]``."""
        pairs, index, n = torch.unique(
            torch.stack([target, groups], dim=1), dim=0, return_inverse=True, return_counts=True
        )
        right = (predictions == target).to(torch.float64)
        accuracy = torch.zeros(len(pairs), dtype=torch.float64).index_add(0, index, right) / n
        weighted = float("nan") if train is None else float(_train_shares(pairs, *train) @ accuracy)
        return cls(pairs, accuracy, n, float(right.mean()), weighted)

    @property
    def value(self) -> float:
        """Accuracy of the worst group."""
        return float(self.accuracy.min())

    @property
    def group(self) -> tuple[int, int]:
        """Class and attribute of the worst group, the first of several."""
        worst = self.groups[int(self.accuracy.argmin())]
        return int(worst[0]), int(worst[1])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per group: class, attribute, n, accuracy, and its 95 % Wilson interval, low and high."""
        low, high = _wilson(self.accuracy.numpy(), self.n.numpy())
        return pd.DataFrame(
            {
                "class": self.groups[:, 0].numpy(),
                "attribute": self.groups[:, 1].numpy(),
                "n": self.n.numpy(),
                "accuracy": self.accuracy.numpy(),
                "low": low,
                "high": high,
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the accuracy of each group with its interval, worst first; return the axes."""
        return pictures.groups(self.to_frame(), self.mean, ax)

    def __repr__(self) -> str:
        y, s = self.group
        return (
            f"WorstGroupAccuracy({self.value:.3f} in class {y} with attribute {s}; mean {self.mean:.3f} over "
            f"{int(self.n.sum())} samples in {len(self.n)} groups)"
        )


def worst_group_accuracy(
    predictions: Any, target: Any, groups: Any, *, train: tuple[Any, Any] | None = None
) -> WorstGroupAccuracy:
    """Return the accuracy of each group (class, attribute) and of the worst, ``min_g acc_g``.

    Args:
        predictions: classes ``[n]`` or logits ``[n, classes]``.
        target: ``[n]`` integer classes.
        groups: ``[n]``, the attribute, or the group itself (a group within one class is the same either way).
        train: ``(target, groups)`` of the training data, whose shares weigh the groups' accuracies. This is usual for
            Waterbirds, whose test data have other shares.

    Raises:
        ValueError: if the lengths differ, labels are no integers, or the training data have another group.

    Example:
        >>> from captum_ablate import worst_group_accuracy
        >>> result = worst_group_accuracy([0, 0, 1, 0], target=[0, 0, 1, 1], groups=[0, 1, 0, 1])
        >>> result.value, result.group
        (0.0, (1, 1))
    """
    target, groups = labels(target, "target"), labels(groups, "groups")
    if np.ndim(predictions) == 2 and np.shape(predictions)[1] > 1:
        predictions = rows(predictions, "predictions", "[n, classes]").argmax(dim=1)
    predictions = labels(predictions, "predictions")
    same_length(predictions=predictions, target=target, groups=groups)
    return WorstGroupAccuracy.of(predictions, target, groups, train)


def _train_shares(pairs: Tensor, target: Any, groups: Any) -> Tensor:
    target, groups = labels(target, "training target"), labels(groups, "training groups")
    same_length(**{"training target": target, "training groups": groups})
    counts = torch.stack([((target == y) & (groups == s)).sum() for y, s in pairs.tolist()]).to(torch.float64)
    if int(counts.sum()) != len(target):
        known = {tuple(pair) for pair in pairs.tolist()}
        missing = next(p for p in zip(target.tolist(), groups.tolist(), strict=True) if p not in known)
        raise ValueError(
            f"the training data have the group {missing} (class, attribute), which the evaluated data lack, so its "
            "accuracy is unknown; evaluate on data that hold every group, or leave out train="
        )
    return counts / counts.sum()


def _wilson(accuracy: NDArray[Any], n: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the ends of Wilson's score intervals."""
    z = stats.norm.ppf((1 + LEVEL) / 2)
    centre = (accuracy + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(accuracy * (1 - accuracy) / n + z**2 / (4 * n**2))
    return np.clip(centre - half, 0, accuracy), np.clip(centre + half, accuracy, 1)
