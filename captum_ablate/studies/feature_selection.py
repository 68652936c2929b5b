"""Are the top units of a ranking good features: accuracy of a linear classifier that sees only them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from captum_ablate.evaluation.labels import headed, name_labels
from captum_ablate.evaluation.plots import COLOURS
from captum_ablate.inputs.targets import as_target, check_classes
from captum_ablate.inputs.values import as_real
from captum_ablate.inputs.wording import counted
from captum_ablate.statistics.intervals import LEVEL, Floats, Interval

MAX_ITERATIONS = 1000
"""Of the classifier's solver; some ten times what standardised features need."""


@dataclass(frozen=True, eq=False)
class FeatureSelection:
    """Accuracy on held-out samples of a classifier that sees the ``k`` top units, ``accuracy [k, splits]``."""

    name: str
    k: tuple[int, ...]
    accuracy: Tensor
    n_train: int
    n_test: int
    seed: int

    @property
    def mean(self) -> Tensor:
        """Mean accuracy over splits, ``[k]``."""
        return self.accuracy.mean(dim=1)

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """95 % intervals of the mean for each k, corrected for the samples that the splits share."""
        return tuple(self._interval(row) for row in self.accuracy)

    def over(self, other: FeatureSelection) -> pd.DataFrame:
        """Return the difference of the accuracies on the same splits: a row per k, and one for their mean.

        Columns: ``k`` (a number or "mean"), ``difference``, ``low``, ``high``, ``wins`` (splits at least as accurate).

        Raises:
            ValueError: if k or the splits differ.
        """
        same = (self.k, self.n_train, self.n_test, self.seed, self.accuracy.shape[1])
        theirs = (other.k, other.n_train, other.n_test, other.seed, other.accuracy.shape[1])
        if same != theirs:
            raise ValueError(
                "both must have the same k and splits (k, n_train, n_test, seed, splits) to be compared; "
                f"got {same} and {theirs}"
            )
        difference = self.accuracy - other.accuracy
        rows = [*zip(self.k, difference, strict=True), ("mean", difference.mean(dim=0))]
        return pd.DataFrame(
            [(k, float(d.mean()), *self._interval(d), int((d >= 0).sum())) for k, d in rows],
            columns=["k", "difference", "low", "high", "wins"],
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per k and split: ``method, k, split, accuracy``."""
        splits = self.accuracy.shape[1]
        return pd.DataFrame(
            {
                "method": self.name,
                "k": np.repeat(self.k, splits),
                "split": np.tile(np.arange(splits), len(self.k)),
                "accuracy": self.accuracy.flatten().numpy(),
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """Draw the mean accuracy against k with intervals; return the axes."""
        return plot_feature_selections({self.name: self}, ax)

    def __repr__(self) -> str:
        text = ", ".join(
            f"{mean:.3f} [{low:.3f}, {high:.3f}] with {k}"
            for k, mean, (low, high) in zip(self.k, self.mean.tolist(), self.intervals, strict=True)
        )
        return f"FeatureSelection({self.name!r}: accuracy {text} units; {self.accuracy.shape[1]} splits)"

    def _interval(self, values: Tensor) -> Interval:
        return resampled_interval(values.numpy(), self.n_train, self.n_test)


def feature_selection(
    scores: Tensor,
    activations: Tensor,
    target: Any,
    *,
    k: Sequence[int] = (5, 10, 15, 20),
    splits: int = 10,
    seed: int = 0,
    name: str = "scores",
) -> FeatureSelection:
    """Return the accuracy of a multinomial logistic regression on the ``k`` top units, for random halves of the data.

    After the feature-selection study of Dhamdhere, Sundararajan and Yan (arXiv 1805.12233), whose classifier and splits
    we do not know. Ours: standardised features, L2 with C = 1, stratified halves, ``splits`` times.

    Args:
        scores: ``[units]``, from other samples than these; or one row per sample, ``[n, units]``, such as those of
            ``sample_scores``. Each split then ranks on its own training half, by the largest absolute class mean.
        activations: ``[n, units]``, averaged over positions.
        target: class of each sample, ``[n]``.
        k: how many top units the classifier sees.
        splits: how often the data are halved.
        seed: of splits and of ties; rankings with the same seed are compared on the same splits (``over``).
        name: what tables and plots call the ranking.

    Raises:
        ValueError: if shapes do not fit, values are not finite, k is out of range, or a class has one sample only.

    Example:
        >>> import torch
        >>> from captum_ablate.studies import feature_selection
        >>> target = torch.arange(60) % 2
        >>> activations = torch.randn(60, 4)
        >>> activations[:, 3] = target  # the unit that tells the class
        >>> feature_selection(torch.tensor([0, 1, 2, 3]), activations, target, k=[1]).mean.tolist()
        [1.0]
    """
    scores, activations = as_real(scores, "scores"), as_real(activations, "activations")
    labels = as_target(target).cpu()
    _check(scores, activations, labels, k, splits)
    check_classes(labels.unique())
    features, y = activations.numpy(), labels.numpy()
    stream = torch.Generator().manual_seed(seed)
    ties = torch.randperm(activations.shape[1], generator=stream)
    halves = list(StratifiedShuffleSplit(splits, test_size=0.5, random_state=seed).split(features, y))
    accuracy = torch.empty(len(k), splits, dtype=torch.float64)
    for split, (train, test) in enumerate(halves):
        importance = scores if scores.ndim == 1 else largest_class_mean(scores[train], labels[train])
        order = ties[importance[ties].argsort(descending=True, stable=True)].numpy()
        for row, size in enumerate(k):
            top = order[:size]
            classifier = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=MAX_ITERATIONS))
            classifier.fit(features[np.ix_(train, top)], y[train])
            accuracy[row, split] = classifier.score(features[np.ix_(test, top)], y[test])
    n_train, n_test = (len(part) for part in halves[0])
    return FeatureSelection(name, tuple(k), accuracy, n_train, n_test, seed)


def resampled_interval(values: Floats, n_train: int, n_test: int) -> Interval:
    """Return the corrected resampled t interval of the mean of ``values [splits]``.

    The splits share their samples, so the variance of the mean is (1 / splits + n_test / n_train) s^2, which exceeds
    s^2 / splits (Nadeau and Bengio, Machine Learning 52, 2003). NaN for one split.

    Example:
        >>> import numpy as np
        >>> from captum_ablate.studies import resampled_interval
        >>> low, high = resampled_interval(np.array([0.8, 0.9, 0.85]), n_train=50, n_test=50)
        >>> round(low, 3), round(high, 3)
        (0.602, 1.098)
    """
    splits = len(values)
    if splits < 2:
        return Interval(np.nan, np.nan)
    error = np.sqrt((1 / splits + n_test / n_train) * values.var(ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, splits - 1) * error)
    return Interval(float(values.mean()) - half, float(values.mean()) + half)


def largest_class_mean(scores: Tensor, target: Tensor) -> Tensor:
    """Return for each unit the largest absolute class mean of its ``scores [n, units]``, ``[units]``."""
    means = torch.stack([scores[target == c].mean(dim=0) for c in target.unique()])  # [classes, units]
    return means.abs().amax(dim=0)


def plot_feature_selections(results: Mapping[str, FeatureSelection], ax: Any = None) -> Any:
    """Draw the mean accuracy of several rankings against the number of units; return the axes."""
    if ax is None:
        _, ax = plt.subplots(figsize=(7.0, 4.6), layout="constrained")
    width = 0.12 * min(np.diff(sorted(next(iter(results.values())).k)), default=1)
    names = name_labels(results)
    for number, (name, result, colour) in enumerate(zip(names, results.values(), cycle(COLOURS))):
        aside = (number - (len(results) - 1) / 2) * width  # so that intervals do not hide each other
        x = [k + aside for k in result.k]
        low, high = zip(*result.intervals, strict=True)
        ax.vlines(x, low, high, color=colour, linewidth=2, alpha=0.5)
        ax.plot(x, result.mean, "o-", color=colour, markersize=5, linewidth=1.4, label=name)
    one = next(iter(results.values()))
    ax.set_xticks(one.k)
    ax.set_xlabel("units that the classifier sees, the top of each ranking")
    ax.set_ylabel("accuracy on held-out samples")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", linewidth=0.5, alpha=0.4)
    splits = one.accuracy.shape[1]
    headed(ax, f"Top units as features: mean of {counted(splits, 'split')}, 95 %")
    ax.legend(fontsize="small", framealpha=0.9)
    return ax


def _check(scores: Tensor, activations: Tensor, target: Tensor, k: Sequence[int], splits: int) -> None:
    if activations.ndim != 2 or len(activations) != len(target):
        raise ValueError(
            f"activations must be [n, units] with one row for each of the {len(target)} labels; "
            f"got {tuple(activations.shape)}"
        )
    n, units = activations.shape
    if tuple(scores.shape) not in ((units,), (n, units)):
        raise ValueError(f"scores must be [{units}] or [{n}, {units}], as the activations; got {tuple(scores.shape)}")
    if not bool(torch.isfinite(scores).all() & torch.isfinite(activations).all()):
        raise ValueError("scores and activations must be finite; some are NaN or infinite")
    if not k or any(isinstance(size, bool) or not 1 <= size <= units for size in k):
        raise ValueError(f"k must be numbers of units between 1 and {units}; got {tuple(k)}")
    if splits < 1:
        raise ValueError(f"splits must be at least 1; got {splits}")
    if int(target.unique(return_counts=True)[1].min()) < 2:
        raise ValueError("every class needs two samples or more, one for each half of a split")
