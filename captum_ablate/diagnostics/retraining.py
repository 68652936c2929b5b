"""A new last layer on frozen features."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from torch import nn

from captum_ablate.diagnostics.labelled import labels, rows, same_length

STRENGTHS = tuple(10.0**k for k in (-4, -3, -2, -1, 0, 1))
"""Values of C among which cross-validation chooses."""
FOLDS = 3


def retrain_last_layer(
    features: Any, target: Any, *, C: float | None = None, draws: int = 10, seed: int = 0
) -> nn.Linear:
    """Return a linear layer, features to logits, fitted to ``features [n, d]`` and classes ``target [n]`` 0..k-1.

    Logistic regression on standardised features, fitted to ``draws`` random subsets with equally many samples of each
    class and averaged; the standardisation is folded into weight and bias, so that the layer takes raw features.
    ``C``, the inverse strength of the L2 penalty, is chosen on the first draw by 3-fold cross-validated
    log-likelihood where it is None: no group labels are looked at. After deep feature reweighting (Kirichenko et al.
    2022), whose penalty is L1.
    """
    matrix, target = rows(features, "features", "[n, d]").numpy(), labels(target, "target")
    same_length(features=torch.from_numpy(matrix), target=target)
    counts = _class_counts(target)
    if C is not None and not C > 0:
        raise ValueError(f"C must be positive, or None for cross-validation; got {C!r}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1; got {draws}")
    if C is None and counts.min() < 2:
        raise ValueError(
            "cross-validation of C needs at least 2 samples of every class, and one class has 1; "
            "bring more samples, or choose C yourself: retrain_last_layer(..., C=1.0)"
        )
    centre, spread = matrix.mean(axis=0), matrix.std(axis=0)
    constant = spread <= 1e-12 * np.abs(matrix).max(axis=0)
    spread = np.where(constant, 1.0, spread)
    standardised = (matrix - centre) / spread
    standardised[:, constant] = 0.0  # so that a feature that never varies gets no weight
    y, rng = target.numpy(), np.random.default_rng(seed)
    weight, bias = np.zeros((len(counts), matrix.shape[1])), np.zeros(len(counts))
    balanced = bool((counts == counts[0]).all())
    subsets = [_draw(y, rng) for _ in range(1 if balanced else draws)]  # equal counts: every draw is the whole
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near the optimum the predictions no longer move
        strength = _best_strength(standardised[subsets[0]], y[subsets[0]], seed) if C is None else C
        for subset in subsets:
            fitted = LogisticRegression(C=strength, tol=1e-6, max_iter=2000).fit(standardised[subset], y[subset])
            w, b = _per_class(fitted.coef_, fitted.intercept_)
            weight += w / len(subsets)
            bias += b / len(subsets)
    layer = nn.utils.skip_init(nn.Linear, matrix.shape[1], len(counts))  # draws no random numbers
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight / spread))
        layer.bias.copy_(torch.from_numpy(bias - (weight / spread) @ centre))
    return layer.requires_grad_(True).eval()


def _class_counts(target: torch.Tensor) -> np.ndarray:
    """Return the samples of each class 0..k-1; raise where one has none."""
    if int(target.min()) < 0:
        raise ValueError(f"labels must be 0..k-1, the rows of the new layer; got {int(target.min())}")
    counts = torch.bincount(target).numpy()
    if len(counts) < 2:
        raise ValueError("a last layer separates two or more classes; all samples have the label 0")
    if not counts.all():
        raise ValueError(
            f"every class 0..{len(counts) - 1} needs samples to retrain on; class {int(counts.argmin())} has none"
        )
    return counts


def _draw(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the indices of a random subset with as many samples of each class as the rarest one has."""
    counts = np.bincount(y)
    return np.sort(
        np.concatenate([rng.permutation(np.flatnonzero(y == c))[: counts.min()] for c in range(len(counts))])
    )


def _best_strength(values: np.ndarray, y: np.ndarray, seed: int) -> float:
    folds = StratifiedKFold(min(FOLDS, int(np.bincount(y).min())), shuffle=True, random_state=seed)

    def quality(strength: float) -> float:
        model = LogisticRegression(C=strength, tol=1e-4, max_iter=500)
        return float(cross_val_score(model, values, y, cv=folds, scoring="neg_log_loss").mean())

    return max(STRENGTHS, key=quality)


def _per_class(weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a row per class; two classes are the softmax of half the binary logit, with both signs."""
    if len(weight) > 1:
        return weight, bias
    return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
