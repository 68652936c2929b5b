"""Interval of a mean over random splits of the same data, which are no independent samples."""

from __future__ import annotations

import numpy as np
from scipy import stats

from captum_ablate.statistics.intervals import LEVEL, Floats, Interval


def resampled_interval(values: Floats, n_train: int, n_test: int) -> Interval:
    """Return the corrected resampled t interval of the mean of ``values [splits]``.

    The splits share their samples, so the variance of the mean is (1 / splits + n_test / n_train) s^2, not s^2 / splits
    (Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003).
    """
    splits = len(values)
    if splits < 2:
        return Interval(np.nan, np.nan)
    error = np.sqrt((1 / splits + n_test / n_train) * values.var(ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, splits - 1) * error)
    return Interval(float(values.mean()) - half, float(values.mean()) + half)
