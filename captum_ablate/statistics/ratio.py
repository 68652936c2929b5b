"""The ratio of two means measured on the same samples, with Fieller's interval."""

from __future__ import annotations

import numpy as np
from scipy import stats

from captum_ablate.statistics.intervals import LEVEL, NO_INTERVAL, Floats, Interval

NO_NOISE = np.zeros((2, 2))


def fieller_interval(
    above: Floats, below: Floats, noise: Floats = NO_NOISE, freedom: float = np.inf
) -> tuple[float, Interval]:
    """Return the ratio of the means of ``above [n]`` and ``below [n]``, and its 95 % interval.

    Fieller (1954): all ratios r for which the mean of ``above - r below`` is not told from 0 by Student's t. Its
    variance is that over samples plus that of ``noise [2, 2]``: the covariance of both means beyond the samples, such
    as that of random orders, with ``freedom`` degrees of freedom. Degrees of freedom are Satterthwaite's, at the ratio
    itself (ours). NaN where the mean of ``below`` is not told from 0, because there any ratio might hold.

    Example:
        >>> import numpy as np
        >>> from captum_ablate.statistics.ratio import fieller_interval
        >>> ratio, interval = fieller_interval(np.array([1.0, 2.0, 3.0, 2.0]), np.array([2.0, 4.1, 5.9, 4.0]))
        >>> round(ratio, 3), round(interval.low, 3), round(interval.high, 3)
        (0.5, 0.47, 0.515)
    """
    n = len(above)
    top, bottom = float(above.mean()), float(below.mean())
    ratio = top / bottom if bottom else float("nan")
    if n < 2 or not bottom:
        return ratio, NO_INTERVAL
    samples = np.cov(above, below) / n
    residual = np.array([1.0, -ratio])
    parts = np.array([residual @ samples @ residual, residual @ noise @ residual])
    degrees = np.array([n - 1, freedom])
    spread = float((parts**2 / degrees).sum())
    t = stats.t.ppf((1 + LEVEL) / 2, float(parts.sum()) ** 2 / spread if spread > 0 else n - 1)
    (v_top, v_both), (_, v_bottom) = t**2 * (samples + noise)
    squared = bottom**2 - v_bottom
    if squared <= 0:
        return ratio, NO_INTERVAL
    middle = top * bottom - v_both
    root = np.sqrt(max(middle**2 - squared * (top**2 - v_top), 0.0))
    return ratio, Interval(float((middle - root) / squared), float((middle + root) / squared))
