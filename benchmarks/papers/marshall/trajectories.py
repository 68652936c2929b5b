"""Trajectories of networks: the energy of the code at each layer as a dot goes around a circle. C3.2."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pandas as pd

from benchmarks.papers.common.claims import Claim, reported
from benchmarks.papers.common.page import Section
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.common.training import Trained
from benchmarks.papers.marshall import encoders
from captum_ablate import dot_on_circle, random_projection_test


def slopes_of(networks: Mapping[tuple[str, float, int], Trained], scale: Scale) -> pd.DataFrame:
    """Return the slope of trajectory energy by layer, for encoders trained with and without dropout."""
    rows = []
    for kind, dropout in product(encoders.FLOORS, (0.0, 0.5)):
        network = networks[kind, dropout, 0].network
        for depth, layer in enumerate(encoders.LAYERS, start=1):
            found = random_projection_test(
                network,
                layer,
                dot_on_circle(),
                projections=scale.pick(4, 30, 200),
                frames=scale.pick((16, 32), (32, 64, 128, 256)),
            )
            r = found.distance_correlation
            rows.append((kind, dropout, depth, layer, found.units, found.slope, *found.interval, float(r.mean())))
    columns = ["network", "dropout", "depth", "layer", "elements", "slope", "low", "high", "distance correlation"]
    return pd.DataFrame(rows, columns=columns)


def path_claim(paths: pd.DataFrame) -> Claim:
    """Return C3.2 on networks, which has no threshold."""
    return reported(
        "C3.2 (networks)",
        "random projections tell smooth codes from rough ones",
        "slope of trajectory energy of a dot on a circle, each layer of the encoders",
        figure=f"{paths['slope'].min():.2f} to {paths['slope'].max():.2f} over {len(paths)} layers",
        note="A network of ReLUs is differentiable almost everywhere, so its slope comes near -1 whatever it "
        "learned: the test can show roughness at the scale of the frames, but nothing about how the spectrum "
        "would go on.",
    )


def path_section(paths: pd.DataFrame) -> Section:
    """Return the section on trajectories."""
    text = (
        "A Gaussian dot goes once around a circle of the image, in 32 to 256 frames; every element of a layer's "
        "output is a unit, because an "
        "average over positions would lose a moving dot. Networks of seed 0. The correlation is that of distances "
        "between inputs and between "
        "projected codes.\n\n{paths}"
    )
    return Section("Trajectories of networks", text, tables={"paths": paths.drop(columns="depth")})
