r"""The exponent of a spectrum less what few samples do to it, by simulated Gaussian codes.

Few samples spread the eigenvalues of a covariance, which steepens a fit. How much depends on the spectrum itself. So
the true spectrum is sought whose Gaussian codes, of as many samples, have the fit that was found (indirect inference,
Gourieroux, Monfort and Renault 1993). The candidates are smooth, a parabola of log eigenvalue over log rank:

.. math:: \log\lambda_i = \theta_0 + \theta_1 \log i + \theta_2 \log^2 i.

A few rounds move :math:`\theta` by what the parabola through the mean simulated spectrum lacks. A last step tilts it
until the simulated fits agree on average with the one found, :math:`\alpha = \alpha_\theta + (\hat\alpha -
\bar\alpha) / D`, where D is how much the fit follows a tilt. The spread of the simulated fits over D is the standard
error. The method's use here is ours.

Samples of varying length, as of a t distribution, act as fewer Gaussian ones, to first order: n over the mixed fourth
moment of ``FourthMoments``. The covariance of a code of n samples is drawn without its samples (Bartlett 1933).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from captum_ablate.diagnostics.power_law import exponents
from captum_ablate.statistics.covariance import eigenvalues

ROUNDS = 3
"""Steps towards the true spectrum: the third moves an exponent by less than a tenth of its standard error."""
LEAST_ROUND, LEAST_LAST = 8, 24
"""Least codes of a round, and of the last step. Their own noise counts in the standard error."""
TILT = 0.1
"""Change of the exponent that shows how much a fit follows it."""


class Calibrated(NamedTuple):
    """An exponent, and the standard deviation that Gaussian codes give it."""

    alpha: float
    standard_error: float


def calibrated(
    values: Tensor, samples: float, fit_range: tuple[int, int], *, simulations: int, seed: int
) -> Calibrated:
    """Return the exponent of the true spectrum from sample eigenvalues ``values [rank]``, largest first, all above 0.

    Args:
        samples: of Gaussian codes that scatter as much, above the number of ``values``.
        simulations: codes in all, about: a quarter in rounds, the others in two lots of the last step.

    Example:
        >>> import numpy as np, torch
        >>> from captum_ablate.diagnostics.gaussian_codes import calibrated, spectra
        >>> from captum_ablate.diagnostics.power_law import exponents
        >>> true = torch.arange(1, 101, dtype=torch.float64) ** -0.5
        >>> found = spectra(true, 400, 1, np.random.default_rng(0))[0]
        >>> less = calibrated(found, 400, (10, 50), simulations=200, seed=0)
        >>> [round(float(alpha), 1) for alpha in (exponents(found, (10, 50)), less.alpha)]
        [0.6, 0.5]
    """
    rng = np.random.default_rng(seed)
    ranks = torch.arange(1, len(values) + 1, dtype=torch.float64).log()
    parabola = torch.stack([ranks**power for power in range(3)], dim=1)
    smooth = parabola @ torch.linalg.pinv(parabola)
    found = values.log()
    true = smooth @ found
    for _ in range(ROUNDS):
        drawn = spectra(true.exp(), samples, max(LEAST_ROUND, simulations // (4 * ROUNDS)), rng)
        true = true + smooth @ (found - drawn.log().mean(dim=0))
    last, state = max(LEAST_LAST, 3 * simulations // 8), rng.bit_generator.state
    fits = exponents(spectra(true.exp(), samples, last, rng), fit_range)
    rng.bit_generator.state = state  # the same codes, tilted
    tilted = exponents(spectra((true - TILT * ranks).exp(), samples, last, rng), fit_range)
    follows = float((tilted - fits).mean()) / TILT
    missing = exponents(values, fit_range) - fits.mean()
    alpha = float(exponents(true.exp(), fit_range) + missing / follows)
    return Calibrated(alpha, float(fits.std()) / follows * (1 + 1 / last) ** 0.5)


def spectra(true: Tensor, samples: float, count: int, rng: np.random.Generator) -> Tensor:
    """Return eigenvalues ``[count, rank]`` of the covariances of Gaussian codes with the eigenvalues ``true [rank]``.

    ``samples``, above rank, need be no whole number: a code of so many, with its mean taken off, has a scatter L L' for
    L lower triangular, normal below a diagonal of chi with samples - 1, samples - 2, ... degrees of freedom.
    """
    rank, degrees = len(true), samples - 1
    found = []
    for _ in range(count):
        factor = np.tril(rng.standard_normal((rank, rank)), -1)
        factor[np.diag_indices(rank)] = np.sqrt(rng.chisquare(degrees - np.arange(rank)))
        scaled = true.sqrt()[:, None] * torch.from_numpy(factor)
        found.append(eigenvalues(scaled @ scaled.T / degrees))
    return torch.stack(found)
