"""``captum-ablate spectrum``: how redundant the code of each layer is and, by its decay, how smooth."""

from __future__ import annotations

import argparse
from math import inf
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from matplotlib.figure import Figure

from captum_ablate.commands import Commands, model_and_data, output_folder, user_code
from captum_ablate.commands.model_and_data import ModelAndData
from captum_ablate.diagnostics import ActivationSpectrum, activation_spectrum, exponents_differ
from captum_ablate.diagnostics.unlabelled import unlabelled_batches
from captum_ablate.inputs.layer_table import list_layers
from captum_ablate.inputs.wording import counted

DEMO_LAYERS = ("features.relu1", "features.relu2", "hidden.linear", "hidden.relu")


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "spectrum",
        help="eigenspectrum, power law and participation ratio of layers, of your own model or the demo's",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    model_and_data.add_arguments(parser)
    parser.add_argument("--layer", action="append", metavar="NAME", help="layer to examine; repeat for several")
    parser.add_argument(
        "--fit-range",
        nargs=2,
        type=int,
        metavar=("FIRST", "LAST"),
        help="ranks of the power law; by default 10 to half the rank of each layer",
    )
    parser.add_argument("--stimulus-dim", type=float, default=inf, help="d of the threshold of smoothness, 1 + 2 / d")
    parser.add_argument("--unit-dim", type=int, default=1, help="axis of the units: -1 for token layers")
    parser.add_argument("--replicates", type=int, default=200, help="bootstrap replicates")
    parser.add_argument("--out", default="captum-ablate-spectrum", help="folder for pictures and tables")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    folder = output_folder.make(options.out)
    subject = model_and_data.load(options)
    with user_code.naming_errors(options):
        layers = options.layer or (_ask_for_layers(subject) if options.model else list(DEMO_LAYERS))
        spectra = _flat(
            activation_spectrum(
                subject.model,
                layers,
                subject.data,
                fit_range=None if options.fit_range is None else tuple(options.fit_range),
                stimulus_dim=options.stimulus_dim,
                unit_dim=options.unit_dim,
                replicates=options.replicates,
                seed=options.seed,
                show_progress=not options.quiet,
            )
        )
    table = pd.DataFrame([one.summary() for one in spectra])
    print(f"{subject.name}, {counted(spectra[0].n, 'sample')}")
    print(_printed(table).to_string(index=False))
    for one in spectra:
        if one.refusal:
            print(f"{one.layer}: no fit, {one.refusal}")
    print(_difference(spectra))
    _write(spectra, table, folder)
    output_folder.announce(folder, ["spectrum.png", "layers.csv", "eigenvalues.csv"])


def _printed(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that fit into a line of the terminal, as text."""
    interval = [
        f"{a:.2f} [{low:.2f}, {high:.2f}]" for a, low, high in zip(table.alpha, table.low, table.high, strict=True)
    ]
    fitted = table["refusal"] == ""
    return pd.DataFrame(
        {
            "layer": table["layer"],
            "units": table["units"],
            "alpha [95 % interval]": [text if ok else "-" for text, ok in zip(interval, fitted, strict=True)],
            "ranks": table["fit_range"].where(fitted, "-"),
            "R2": table["r2"].map("{:.3f}".format).where(fitted, "-"),
            "verdict": table["verdict"],
            "participation ratio": table["participation_ratio"].map("{:.1f}".format),
            "redundancy": table["redundancy"].map("{:.2f}".format),
        }
    )


def _difference(spectra: list[ActivationSpectrum]) -> str:
    """Say whether the exponents of the layers differ, or why they are not compared."""
    fitted = [one for one in spectra if one.refusal is None and len(one.replicates) > 1]
    if len(fitted) < 2:
        return "fewer than two layers have a bootstrapped exponent, so none are compared"
    if len({one.fit_range for one in fitted}) > 1:
        return "exponents over different ranks are not compared; --fit-range sets one range for all layers"
    if not len(fitted) < min(fitted[0].groups, len(fitted[0].replicates)):
        return (
            f"{len(fitted)} exponents are not compared: that needs fewer than {fitted[0].groups} layers, and more "
            "--replicates than layers"
        )
    test = exponents_differ(fitted)
    return (
        f"do the exponents of {len(fitted)} layers differ? Cochran's Q {test.q:.1f} with {test.df} degrees of freedom, "
        f"p = {test.p:.2g}; their standard deviation beyond chance is {test.spread:.2f}"
    )


def _write(spectra: list[ActivationSpectrum], table: pd.DataFrame, folder: Path) -> None:
    table.to_csv(folder / "layers.csv", index=False)
    pd.concat([one.to_frame() for one in spectra]).to_csv(folder / "eigenvalues.csv", index=False)
    columns = min(2, len(spectra))
    rows = -(-len(spectra) // columns)
    figure = Figure(figsize=(7.0 * columns, 4.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for one, ax in zip(spectra, axes, strict=False):
        one.plot(ax)
    for ax in axes[len(spectra) :]:
        ax.set_visible(False)
    figure.savefig(folder / "spectrum.png", dpi=130)


def _ask_for_layers(subject: ModelAndData) -> NoReturn:
    """Raise an error that lists the layers of the user's model, since none was named."""
    batch = next(iter(unlabelled_batches(subject.data, forward_func=subject.model)))
    frame = list_layers(subject.model, *(part[:2] for part in batch.inputs))
    names = frame.loc[(frame["calls"] == 1) & (frame["units"] > 1), "name"].tolist()
    raise ValueError(
        f"name at least one layer with --layer; layers that run once: {', '.join(names[:30])}"
        + (f" and {len(names) - 30} more" if len(names) > 30 else "")
    )


def _flat(results: list[Any]) -> list[ActivationSpectrum]:
    """Return one spectrum per tensor: a layer may return several."""
    return [one for part in results for one in (part if isinstance(part, tuple) else (part,))]
