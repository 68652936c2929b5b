"""Do several layers of a network decay differently? One joint test, because some two of many always look different."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from captum_ablate.diagnostics.spectrum import ActivationSpectrum
from captum_ablate.statistics.intervals import Floats

SAME = 1e-10
"""Share of the variance below which two exponents differ by rounding alone, as those of a layer and its copy do."""


@dataclass(frozen=True)
class Heterogeneity:
    """A joint test that all exponents are equal.

    ``q`` is Cochran's Q with the bootstrap's whole covariance, ``df`` its degrees of freedom. ``p`` is that of
    Hotelling's T2 with as many samples as there are resampled groups. ``spread`` is the standard deviation of the
    exponents beyond chance.
    """

    layers: tuple[str, ...]
    q: float
    df: int
    p: float
    spread: float

    @classmethod
    def of(cls, layers: Sequence[str], alpha: Floats, replicates: Floats, groups: int) -> Heterogeneity:
        """Test the exponents ``alpha [layers]`` by their ``replicates [layers, replicates]`` of ``groups`` groups."""
        count = len(alpha)
        covariance = np.cov(replicates) * groups / (groups - 1)
        contrast = np.hstack([-np.ones((count - 1, 1)), np.eye(count - 1)])
        differences = contrast @ alpha
        variances, directions = np.linalg.eigh(contrast @ covariance @ contrast.T)
        free = variances > SAME * np.trace(covariance)
        q, df = float(((differences @ directions[:, free]) ** 2 / variances[free]).sum()), int(free.sum())
        p = float(stats.f.sf(q * (groups - df) / ((groups - 1) * df), df, groups - df)) if df else 1.0
        chance = float(np.trace(_deviations(covariance))) / (count - 1)
        beyond = max(0.0, float(alpha.var(ddof=1)) - chance)
        return cls(tuple(layers), q, df, p, beyond**0.5)


def exponents_differ(spectra: Sequence[ActivationSpectrum]) -> Heterogeneity:
    """Test that the exponents of ``spectra``, of one call of ``activation_spectrum``, are all equal.

    The layers saw the same samples and share the bootstrap draws, so their errors are correlated. With S the covariance
    of the exponents over replicates and C the differences from the first, Q = (C a)' (C S C')^-1 (C a). A layer that
    repeats another (dropout in evaluation mode, a scaled copy) adds no degree of freedom. The test is ours.

    Raises:
        ValueError: if a spectrum has no bootstrapped exponent, if the spectra differ in samples or fit range, or if
            they are too many for the groups or the replicates.

    Example:
        >>> import torch
        >>> from captum_ablate import activation_spectrum, exponents_differ
        >>> net = torch.nn.Sequential(torch.nn.Linear(20, 20), torch.nn.Dropout()).eval()
        >>> spectra = activation_spectrum(net, ["0", "1"], torch.randn(200, 20), fit_range=(1, 10))
        >>> exponents_differ(spectra).p  # a layer and its copy
        1.0
    """
    for one in spectra:
        if one.refusal is not None or len(one.replicates) < 2:
            raise ValueError(
                f"{one.layer} has no bootstrapped exponent ({one.refusal or 'no replicates'}); leave it out"
            )
    if len({(one.n, one.groups, one.fit_range, len(one.replicates)) for one in spectra}) != 1:
        raise ValueError(
            "the spectra must come from one call of activation_spectrum, with the same samples and one fit_range; pass "
            "fit_range to activation_spectrum, since the default range depends on the width of a layer"
        )
    count, groups = len(spectra), spectra[0].groups
    if not 2 <= count < groups:
        raise ValueError(f"between 2 and {groups - 1} layers can be compared; got {count}")
    if len(spectra[0].replicates) <= count:
        raise ValueError(
            f"the joint errors of {count} exponents need more than {count} bootstrap replicates; got "
            f"{len(spectra[0].replicates)}: pass replicates=200 to activation_spectrum"
        )
    alpha = np.array([one.alpha for one in spectra])
    replicates = torch.stack([one.replicates for one in spectra]).numpy()
    return Heterogeneity.of([one.layer for one in spectra], alpha, replicates, groups)


def _deviations(covariance: Floats) -> Floats:
    """Return the covariance of each layer's deviation from the mean over layers."""
    size = len(covariance)
    centre = np.eye(size) - 1 / size
    return np.asarray(centre @ covariance @ centre)
