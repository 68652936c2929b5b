"""Weights of each unit in a linear probe of the class."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from torch import Tensor

from captum_ablate.attr.base import LayerDatasetAttribution
from captum_ablate.inputs.warnings import ignoring
from captum_ablate.statistics.requests import TableRequest
from captum_ablate.statistics.table import ActivationTable

STRENGTHS = tuple(10.0**k for k in (-4, -3, -2, -1, 0, 1))
"""Values of C that cross-validation chooses from; above 10 a standardised probe is hardly regularised."""

FOLDS = 3
"""Folds of that cross-validation; fewer if a class has fewer samples."""


class LayerLinearProbe(LayerDatasetAttribution):
    r"""L2 norm over classes of a unit's centred weights in a multinomial linear probe of the class:

    .. math:: s_u = \sqrt{\sum_c (w_{cu} - \bar w_u)^2}

    The probe is scikit-learn's logistic regression on standardised pooled activations. Two classes are the softmax
    :math:`(-w/2, +w/2)` of the binary probe. Units that vary by rounding alone score 0. ``per_class`` returns the
    centred weights, ``[classes, units]``. Hayne et al. (2022, arXiv 2211.04367) ask how probes and ablation agree; this
    probe is ours.

    Args:
        C: inverse strength of the L2 penalty; None chooses it by cross-validated log-likelihood.

    Raises:
        ValueError: if ``C`` is not positive, or a class has too few samples to choose it.

    Example:
        >>> import torch
        >>> from captum_ablate import LayerLinearProbe
        >>> model = torch.nn.Sequential(torch.nn.ReLU())
        >>> x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, -1.0]])
        >>> LayerLinearProbe(model, "0", C=1.0).attribute(x, target=[0, 0, 1, 1]).round(decimals=1).tolist()
        [0.6, 0.3]
    """

    requests = (TableRequest(),)

    C: float | None = None

    def __post_init__(self) -> None:
        if self.C is not None and not self.C > 0:
            raise ValueError(f"C must be positive, or None for cross-validation; got {self.C!r}")

    def held(self, table: ActivationTable) -> LayerLinearProbe:
        """Return the probe with the strength that cross-validation chooses on the table."""
        if self.C is not None:
            return self
        values, target = _standardised(table)[0], table.target.numpy()
        if not values.shape[1]:
            return self
        fixed = copy(self)
        fixed.C = _best_strength(*_ordered(values, target))
        return fixed

    def score(self, table: ActivationTable) -> Tensor:
        return torch.linalg.vector_norm(self.score_per_class(table), dim=0)

    def score_per_class(self, table: ActivationTable) -> Tensor:
        (standardised, alive), target = _standardised(table), table.target.numpy()
        weights = np.zeros((len(np.unique(target)), len(alive)))
        if alive.any():
            weights[:, alive] = _weights(standardised, target, self.C)
        return torch.from_numpy(weights)


def _standardised(table: ActivationTable) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the standardised values ``[n, alive]`` of the units that vary, and which these are, ``[units]``."""
    values = table.values.numpy()
    spread = values.std(axis=0)
    alive = spread > table.rounding * np.abs(values).max(axis=0, initial=0)
    return (values[:, alive] - values[:, alive].mean(axis=0)) / spread[alive], alive


def _ordered(values: NDArray[Any], target: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the samples in an order that depends neither on that of the data nor on that of the units: the folds."""
    key = np.sort(values, axis=1) @ np.cos(np.arange(values.shape[1]))
    order = np.lexsort((key, target))
    return values[order], target[order]


def _weights(values: NDArray[Any], target: NDArray[Any], strength: float | None) -> NDArray[Any]:
    """Return the centred weights ``[classes, units]`` of the probe."""
    values, target = _ordered(values, target)
    with ignoring(ConvergenceWarning):  # near the optimum the ranking no longer moves
        if strength is None:
            strength = _best_strength(values, target)
        weights = LogisticRegression(C=strength, tol=1e-6, max_iter=1000).fit(values, target).coef_
    if len(weights) == 1:
        weights = np.concatenate([-weights / 2, weights / 2])
    centred: NDArray[Any] = weights - weights.mean(axis=0)
    return centred


def _best_strength(values: NDArray[Any], target: NDArray[Any]) -> float:
    fewest = int(np.unique(target, return_counts=True)[1].min())
    if fewest < 2:
        raise ValueError(
            "cross-validation of C needs at least 2 samples of every class, and one class has 1; "
            "bring more samples, or choose C yourself: LayerLinearProbe(..., C=1.0)"
        )
    folds = StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=0)

    def quality(strength: float) -> float:
        probe = LogisticRegression(C=strength, tol=1e-3, max_iter=200)
        return float(cross_val_score(probe, values, target, cv=folds, scoring="neg_log_loss").mean())

    return max(STRENGTHS, key=quality)
