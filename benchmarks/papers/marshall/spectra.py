"""Spectra over depth: do the exponents of the layers of a network differ? C3.5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.papers.common import classifiers
from benchmarks.papers.common.claims import Claim, Verdict, reported, with_interval
from benchmarks.papers.common.data import first, images
from benchmarks.papers.common.page import Section
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.common.training import Trained
from benchmarks.papers.marshall import encoders
from captum_ablate import ActivationSpectrum, activation_spectrum, exponents_differ
from captum_ablate.diagnostics.pictures import framed
from captum_ablate.evaluation.plots import COLOURS, DARK_GREY, MARKERS
from captum_ablate.statistics.intervals import mean_interval

RANKS = (10, 64)
"""The ranks of every fit over depth: one range for all layers, up to half of the 128 units of the narrowest."""

SHARED = {
    "vgg": ("relu2", "relu3", "relu4", "relu5"),
    "resnet": ("block2.relu1", "block2.relu2", "block3.relu1", "block3.relu2"),
}
SHARED_RANKS = (10, 32)
"""The shared classifiers have 64 to 128 units where a fit is possible."""

Networks = Mapping[tuple[str, float, int], Trained]
"""Trained networks by kind, dropout and seed."""


def encoder_networks(scale: Scale) -> dict[tuple[str, float, int], Trained]:
    """Return autoencoders and classifiers by kind, dropout and seed."""
    settings = list(product(encoders.FLOORS, encoders.DROPOUTS, range(scale.pick(1, 3))))
    return {one: encoders.encoder(*one, scale) for one in tqdm(settings, desc="encoders", unit="network")}


def shared_networks(scale: Scale) -> dict[tuple[str, float, int], Trained]:
    """Return the classifiers that other replications share; none at quick scale, where they are too narrow to fit."""
    return {
        (kind, 0.0, seed): classifiers.convolutional(kind, seed) for kind in SHARED for seed in range(scale.pick(0, 3))
    }


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra of several networks: ``rows`` by network and layer, ``tests`` with the joint test of each network.

    Both frames have the columns ``network, dropout, seed, performance``.
    """

    rows: pd.DataFrame
    tests: pd.DataFrame


def encoder_spectra(networks: Networks, scale: Scale) -> Spectra:
    """Return the spectra of every layer of the encoders, on held-out images."""
    held_out = first(images("cifar10").evaluate, scale.pick(300, 5_000)).images
    return _spectra(networks, dict.fromkeys(encoders.FLOORS, encoders.LAYERS), held_out, RANKS, scale)


def shared_spectra(networks: Networks, scale: Scale) -> Spectra:
    """Return the spectra of the shared classifiers, on held-out images."""
    return _spectra(networks, SHARED, images("cifar10").evaluate.images, SHARED_RANKS, scale)


def _spectra(
    networks: Networks, layers: Mapping[str, Sequence[str]], held_out: Tensor, ranks: tuple[int, int], scale: Scale
) -> Spectra:
    rows, tests = [], []
    for (kind, dropout, seed), trained in tqdm(networks.items(), desc="spectra", unit="network"):
        spectra = activation_spectrum(
            trained.network, list(layers[kind]), held_out, fit_range=ranks, replicates=scale.pick(20, 100, 400)
        )
        own = {"network": kind, "dropout": dropout, "seed": seed, "performance": trained.accuracy}
        rows += [
            {
                **own,
                "depth": depth,
                **one.summary(),
                "relative_pr": one.participation_ratio / one.units,
                "se": one.standard_error,
                "eigenvalues": one.eigenvalues,
            }
            for depth, one in enumerate(spectra, start=1)
        ]
        tests.append({**own, **_joint(spectra)})
    return Spectra(pd.DataFrame(rows), pd.DataFrame(tests))


def _joint(spectra: Sequence[ActivationSpectrum]) -> dict[str, float]:
    """Return the joint test of the layers with an exponent; dead units can leave a layer too narrow for one."""
    fitted = [one for one in spectra if one.refusal is None]
    if len(fitted) < 2:
        return {"layers": len(fitted), "Q": np.nan, "p": np.nan, "spread": np.nan}
    test = exponents_differ(fitted)
    return {"layers": len(fitted), "Q": test.q, "p": test.p, "spread": test.spread}


def depth_claim(name: str, what: str, tests: pd.DataFrame) -> Claim:
    """Return C3.5: exponents differ between the layers of every network. Joint test, Holm over networks."""
    chance = stats.studentized_range.sf(2, len(encoders.LAYERS), 1_000)
    check = (
        "joint test of equal exponents (Cochran's Q with the bootstrap's covariance) at 5 % in each network, "
        "Holm over them"
    )
    note = (
        "Thresholds are ours. A range over 2 standard errors, the rule that we first had, would come by chance in "
        f"{chance:.0%} of networks with five equal layers."
    )
    statement = f"the exponent depends on depth ({what})"
    if tests.empty or tests["p"].isna().all():
        return reported(name, statement, check, figure="not run at this scale")
    p = tests["p"].dropna().sort_values().to_numpy()
    adjusted = np.maximum.accumulate(p * np.arange(len(p), 0, -1))
    told_apart = int((adjusted < 0.05).sum())
    result: Verdict = "holds" if told_apart == len(p) else "undecided"
    spread = tests["spread"].dropna().to_numpy()
    figure = (
        f"{told_apart} of {len(p)} networks, largest p {min(1, adjusted.max()):.1g}; standard deviation of alpha "
        f"over layers beyond chance {with_interval(float(spread.mean()), mean_interval(spread), digits=2)}"
    )
    return Claim(name, statement, check, figure, mean_interval(spread), 0.0, result, note)


def depth_section(found: Spectra) -> Section:
    """Return the section on the spectra of the encoders."""
    spectra, tests = found.rows, found.tests
    performance = tests.groupby(["network", "dropout"], sort=False)["performance"].mean()
    learned = "; ".join(f"{kind} {value:.2f} at dropout {dropout:g}" for (kind, dropout), value in performance.items())
    text = (
        "An encoder of four convolutions (128, 128, 256, 256 channels) and a dense layer (256), dropout after every "
        f"ReLU in training, trained on {encoders.IMAGES:,} CIFAR-10 images for {encoders.EPOCHS} epochs to rebuild "
        "them (autoencoder) or to name their class (classifier). Performance on held-out images (R2, accuracy), mean "
        f"of {tests['seed'].nunique()} seeds: {learned}. Spectra of {spectra['n'].max():,} held-out images in "
        "evaluation mode, after the ReLU, channels averaged over positions, centred, not scaled. One range of ranks "
        "for all layers, because an exponent goes with its range; a layer of which dead units leave fewer than "
        f"{RANKS[1]} eigenvalues above rounding is refused.\n\n{{depth}}\n\n"
        "Mean of the seeds that were fitted (participation ratio: of all); *refused* counts the others, and *smooth* "
        "the fitted whose interval lies above 1:\n\n"
        "{layers}\n\nThe joint test, one row a network:\n\n{joint}"
    )
    return Section(
        "Spectra over depth",
        text,
        tables={"layers": _layer_means(spectra), "joint": _joint_table(tests)},
        figures={"depth": _depth_figure(spectra)},
        captions={"depth": "One line for each dropout rate, mean of seeds; a point is a seed."},
    )


def _depth_figure(spectra: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(11.5, 8.4), layout="constrained")
    axes = figure.subplots(2, len(encoders.FLOORS), squeeze=False)
    for column, kind in enumerate(encoders.FLOORS):
        rows = spectra[spectra["network"] == kind]
        _by_depth(axes[0, column], rows, "alpha", f"Exponent over depth, {kind}s")
        axes[0, column].axhline(1, color=DARK_GREY, linewidth=0.8)
        _by_depth(axes[1, column], rows, "relative_pr", f"Participation ratio over depth, {kind}s")
    axes[0, 0].set_ylabel(f"alpha (ranks {RANKS[0]}-{RANKS[1]})")
    axes[1, 0].set_ylabel("participation ratio / units")
    return figure


def _layer_means(spectra: pd.DataFrame) -> pd.DataFrame:
    """Return a row per kind, dropout and layer: means over seeds, and how many spectra were refused or smooth."""
    return (
        spectra.groupby(["network", "dropout", "layer"], sort=False)
        .agg(
            units=("units", "first"),
            alpha=("alpha", "mean"),
            se=("se", "mean"),
            r2=("r2", "mean"),
            participation_ratio=("participation_ratio", "mean"),
            relative=("relative_pr", "mean"),
            refused=("verdict", lambda v: (v == "refused").sum()),
            smooth=("verdict", lambda v: f"{(v == 'smooth').sum()} of {(v != 'refused').sum()}"),
        )
        .reset_index()
        .rename(
            columns={
                "se": "s.e. over images",
                "relative": "participation ratio / units",
                "participation_ratio": "participation ratio",
            }
        )
    )


def _joint_table(tests: pd.DataFrame) -> pd.DataFrame:
    return tests.assign(p=tests["p"].map("{:.1g}".format)).rename(columns={"spread": "sd of alpha beyond chance"})


def _by_depth(ax: Axes, rows: pd.DataFrame, column: str, title: str) -> None:
    for number, (dropout, own) in enumerate(rows.groupby("dropout")):
        colour, marker = COLOURS[number], MARKERS[number]
        mean = own.groupby("depth")[column].mean()
        ax.plot(mean.index, mean, color=colour, linewidth=1.8, marker=marker, label=f"dropout {dropout:g}")
        ax.plot(own["depth"] + 0.06 * (number - 1), own[column], marker, color=colour, markersize=3.5, alpha=0.5)
    names = rows.drop_duplicates("depth")
    ax.set_xticks(names["depth"], [layer.split(".")[-1] for layer in names["layer"]])
    ax.set_xlabel("layer of the encoder")
    ax.legend(frameon=False, fontsize="small")
    framed(ax, title, f"CIFAR-10, {rows['seed'].nunique()} seeds")


def shared_section(found: Spectra) -> Section:
    """Return the section on the spectra of the shared classifiers."""
    shared, tests = found.rows, found.tests
    if shared.empty:
        return Section("The classifiers of the other replications", "Too narrow for any fit at this scale.")
    shown = (
        shared.groupby(["network", "layer"], sort=False)
        .agg(
            units=("units", "first"),
            alpha=("alpha", "mean"),
            lowest=("alpha", "min"),
            highest=("alpha", "max"),
            r2=("r2", "mean"),
            participation_ratio=("participation_ratio", "mean"),
            redundancy=("redundancy", "mean"),
        )
        .reset_index()
    )
    text = (
        "A VGG-like and a small ResNet, 3 seeds each, as in the ablation replications (batch normalisation, no "
        f"dropout), ranks {SHARED_RANKS[0]} to {SHARED_RANKS[1]} of their layers of 64 units and more; narrower ones "
        "are refused.\n\n{shared}\n\n{shared_joint}"
    )
    tables = {"shared": shown, "shared_joint": _joint_table(tests.drop(columns="dropout"))}
    return Section("The classifiers of the other replications", text, tables=tables)
