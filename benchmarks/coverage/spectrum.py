"""The exponent of a spectrum that is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from captum_ablate import activation_spectrum


def spectrum(repeats: int) -> pd.DataFrame:
    """Return the coverage of the exponent of a code with eigenvalues i^-alpha."""
    model, rows = torch.nn.Sequential(torch.nn.Identity()), []
    for units, n, tails in ((64, 640, "normal"), (64, 2560, "normal"), (64, 640, "heavy"), (200, 1000, "normal")):
        for alpha in (0.5, 1.0, 2.0):
            rng, found = np.random.default_rng(0), []
            for k in range(repeats):
                code = rng.standard_normal((n, units))
                code *= np.sqrt(3 / rng.chisquare(5, (n, 1))) if tails == "heavy" else 1.0
                samples = torch.from_numpy(code * np.arange(1, units + 1) ** (-alpha / 2))
                one = activation_spectrum(model, "0", samples, replicates=60, seed=k)
                found.append((one.alpha, one.interval.low <= alpha <= one.interval.high))
            values = np.array(found, dtype=float)
            figures = {"bias": values[:, 0].mean() - alpha, "coverage": values[:, 1].mean()}
            rows.append({"units": units, "samples": n, "tails": tails, "alpha": alpha, **figures})
    return pd.DataFrame(rows)
