"""The exponent of a known spectrum: Gaussian codes, of straight and bent spectra, and codes with other tails."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from captum_ablate import activation_spectrum
from captum_ablate.diagnostics.power_law import exponents
from captum_ablate.diagnostics.spectrum import ActivationSpectrum
from captum_ablate.statistics.intervals import Interval

CASES = (
    *((64, 640, tails) for tails in ("normal", "normal, bent", "t, 10", "t, 5", "Laplace")),
    (64, 2560, "normal"),
    (64, 320, "normal"),
    (200, 2000, "normal"),
    (200, 1000, "normal"),
)
"""Units, samples and tails: "t" gives each sample a length of its own, Laplace is that of each direction alone."""
REPLICATES = 60


def true_spectrum(units: int, alpha: float, tails: str) -> NDArray[np.float64]:
    """Return i^-alpha, ``[units]``; a bent one falls half as fast in its first quarter."""
    ranks = np.arange(1, units + 1)
    if "bent" not in tails:
        return np.asarray(ranks**-alpha)
    knee = units / 4
    return np.where(ranks < knee, ranks ** (-alpha / 2), knee ** (alpha / 2) * ranks**-alpha)


def code(rng: np.random.Generator, n: int, spectrum: NDArray[np.float64], tails: str) -> Tensor:
    """Return samples ``[n, units]`` of a code with this ``spectrum [units]``."""
    size = (n, len(spectrum))
    values = rng.laplace(size=size) / np.sqrt(2) if tails == "Laplace" else rng.standard_normal(size)
    if tails.startswith("t, "):
        freedom = int(tails[3:])
        values *= np.sqrt((freedom - 2) / rng.chisquare(freedom, (n, 1)))
    return torch.from_numpy(values * np.sqrt(spectrum))


def by_bootstrap(found: ActivationSpectrum) -> Interval:
    """Return the interval of former versions: the bootstrap's bias taken off, its standard deviation around that."""
    error = float(found.replicates.std()) * (found.groups / (found.groups - 1)) ** 0.5
    middle, half = 2 * found.fit.alpha - float(found.replicates.mean()), stats.t.ppf(0.975, found.groups - 1) * error
    return Interval(middle - half, middle + half)


def spectrum(repeats: int) -> pd.DataFrame:
    """Return bias, and coverage before and now, of the exponent over the default ranks."""
    model, rows = torch.nn.Sequential(torch.nn.Identity()), []
    for units, n, tails in CASES:
        for alpha in (0.5, 1.0, 2.0):
            rng, values = np.random.default_rng(0), true_spectrum(units, alpha, tails)
            kept = []
            for k in range(repeats):
                one = activation_spectrum(model, "0", code(rng, n, values, tails), replicates=REPLICATES, seed=k)
                assert one.fit_range is not None
                truth = float(exponents(torch.from_numpy(values), one.fit_range))
                ends = (by_bootstrap(one), one.interval)
                inside = [float(low <= truth <= high) for low, high in ends]
                kept.append((one.alpha - truth, *inside, one.no_interval is None, ends[1].high - ends[1].low))
            table = np.array(kept, dtype=float)
            given = table[table[:, 3] == 1]
            row = {"units": units, "samples": n, "tails": tails, "alpha": alpha, "bias": table[:, 0].mean()}
            row |= {"coverage, before": table[:, 1].mean(), "interval given": table[:, 3].mean()}
            width = given[:, 4].mean() / (3.92 * table[:, 0].std()) if len(given) else np.nan
            rows.append(row | {"coverage, now": given[:, 2].mean() if len(given) else np.nan, "now: width": width})
    return pd.DataFrame(rows)
