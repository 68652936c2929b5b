"""The page on Marshall and Kirchner: codes that are known, spectra, dropout, error correction, trajectories."""

from __future__ import annotations

import time

import pandas as pd

from benchmarks.papers.common.page import Seconds, Section, write_page
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.marshall.copying import copiers, copying_claim, copying_section, decoded
from benchmarks.papers.marshall.dropout import dropout_claims, refit_lesson, refit_section, refits
from benchmarks.papers.marshall.known import known_codes
from benchmarks.papers.marshall.spectra import (
    depth_claim,
    depth_section,
    encoder_networks,
    encoder_spectra,
    shared_networks,
    shared_section,
    shared_spectra,
)
from benchmarks.papers.marshall.trajectories import path_claim, path_section, slopes_of

INTRODUCTION = """
Marshall, Kirchner. *Understanding polysemanticity in neural networks through coding theory.* arXiv 2401.17975, 2024.
What we had of it is the abstract and the authors' supplementary repository (a note with proofs, training code); the
main text was not seen, and the repository's code for exponent and energy holds another file by mistake. So formulas
are those of the note where it has them and **ours** where it has none: range and bootstrap of the fit, slope over the
number of frames and its law, participation ratio, and every threshold below. The paper gives no number that we could
compare with; directions are our reading of its summary.
"""


def run(scale: Scale) -> None:
    """Train the networks that are not in the cache, run the protocol and write the page."""
    encoders, shared, copying = encoder_networks(scale), shared_networks(scale), copiers(scale)
    training = sum(one.seconds for group in (encoders, shared, copying) for one in group.values())
    start = time.process_time()
    known_claims, known_section = known_codes(scale)
    depth, others = encoder_spectra(encoders, scale), shared_spectra(shared, scale)
    refitted = refits(depth.rows)
    copied, paths = decoded(copying, scale), slopes_of(encoders, scale)
    claims = [
        *known_claims,
        *dropout_claims(depth.rows),
        depth_claim("C3.5", "encoders", depth.tests[depth.tests["dropout"] == 0]),
        depth_claim("C3.5 (shared classifiers)", "VGG-like and ResNet", others.tests),
        copying_claim(copied),
        path_claim(paths),
    ]
    sections = [
        known_section,
        depth_section(depth),
        refit_section(refitted),
        shared_section(others),
        copying_section(copied),
        path_section(paths),
        Section("What failed, and why we think so", _lessons(depth.rows, refitted)),
    ]
    write_page(
        "marshall",
        "Codes as spectra: Marshall and Kirchner 2024",
        command=" ".join(["python -m benchmarks.papers marshall", scale.option]).strip(),
        seconds=Seconds(time.process_time() - start, training),
        sections=sections,
        claims=claims,
        scale=scale,
        introduction=INTRODUCTION,
    )


def _lessons(spectra: pd.DataFrame, refitted: pd.DataFrame) -> str:
    return "\n".join(
        [
            refit_lesson(refitted, spectra),
            smoothness_lesson(spectra),
            "- Exponent and participation ratio are two questions: the ratio sees the first few eigenvalues, the "
            "exponent the ranks after them. Where the two claims of C3.4 part, dropout has moved variance into the "
            "first directions without changing the decay behind them, or the other way round.",
            "- Three seeds give Student's t two degrees of freedom (factor 4.3), so only large and even changes are "
            "told from none.",
            "- The protocol is smaller than the supplement's (VAE on a ResNet-18, 224 px, 200 epochs): a claim that "
            "fails here has failed for small encoders, not for theirs.",
        ]
    )


def smoothness_lesson(spectra: pd.DataFrame) -> str:
    """Return how many of the fitted spectra are smooth, and how many were refused, in words."""
    fitted = spectra[spectra["verdict"] != "refused"]
    smooth, refused = int((fitted["verdict"] == "smooth").sum()), len(spectra) - len(fitted)
    autoencoder = spectra[spectra["network"] == "autoencoder"]
    shallow, deep = (autoencoder[autoencoder["depth"] == d]["alpha"].mean() for d in (1, autoencoder["depth"].max()))
    which = (
        "Every spectrum that could be fitted decays" if smooth == len(fitted) else "Spectra that could be fitted decay"
    )
    apart = f"; the other {refused} of {len(spectra)} were refused because of dead units" if refused else ""
    return (
        f"- {which} faster than rank^-1 ({smooth} of {len(fitted)} layers of networks{apart}), so the threshold of "
        f"smoothness separates {'nothing' if smooth == len(fitted) else 'little'} here; autoencoders go from alpha "
        f"{shallow:.2f} in the first layer to {deep:.2f} in the last."
    )
