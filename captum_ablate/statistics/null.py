r"""Hold a gap against the gaps of random orders: how far out it lies, and how often chance does as well.

Every random order runs with its reverse, so the gap of a random order is symmetric around 0 by construction, and its
mean needs no estimate. With :math:`r_1 \dots r_R` the gaps of R random orders and g that of a ranking,

.. math:: z = g / s, \quad s^2 = \frac1R \sum_i r_i^2,

compares with Student's t with R degrees of freedom, one-sided (``p_raw``). The exchange p,

.. math:: p_{exact} = \#\{\pm g, \pm r_i \ge g\} \,/\, 2 (R + 1),

needs no distribution: under the null g is one more random order, and each of the 2 (R + 1) signed gaps is as likely
to be the observed one. It is valid where orders are uniform over the same units, reverses use the same counts, the
ranking is independent of the evaluation samples, and their number is fixed beforehand. Both formulas are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from captum_ablate.statistics.intervals import Floats


class AgainstChance(NamedTuple):
    """Comparison of a gap with random orders; NaN where there are none.

    ``z``: gap over the root mean square of the random gaps, known to about ``1 / sqrt(2 R)`` of itself. ``p_raw``: from
    Student's t. ``p_exact``: the exchange p, a multiple of ``1 / (2 (R + 1))``.
    """

    z: float
    p_raw: float
    p_exact: float


UNKNOWN = AgainstChance(np.nan, np.nan, np.nan)


def against_chance(gap: float, null: Floats) -> AgainstChance:
    """Return how ``gap`` compares with ``null [R]``, the gaps of random orders.

    Where all random gaps are 0, chance says nothing: z is NaN and p is 1.

    >>> import numpy as np
    >>> from captum_ablate.statistics.null import against_chance
    >>> round(against_chance(0.3, np.array([0.1, -0.1, 0.1, -0.1])).z, 9)
    3.0
    >>> against_chance(0.3, np.array([0.1, -0.1, 0.1, -0.1])).p_exact
    0.1
    """
    if not len(null):
        return UNKNOWN
    scale = float(np.sqrt(np.mean(null**2)))
    tiny = 1e-12 * max(abs(gap), float(np.abs(null).max()))  # equal masks may round apart
    both = np.concatenate([null, -null, [gap, -gap]])
    exact = float((both >= gap - tiny).mean())
    if scale == 0:
        return AgainstChance(np.nan, 1.0, 1.0)
    z = gap / scale
    return AgainstChance(z, float(stats.t.sf(z, len(null))), exact)


def holm(p: Floats) -> Floats:
    """Return ``p [tests]`` corrected for their number by Holm's method; NaN stays and does not count."""
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return adjusted
