"""Does dropout make the codes of encoders redundant, and does the answer depend on the fit? C3.4."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from benchmarks.papers.common.claims import Claim, judged_over, verdict
from benchmarks.papers.common.page import Section
from benchmarks.papers.marshall.spectra import RANKS
from captum_ablate.diagnostics.power_law import fit_power_law, rank_of
from captum_ablate.statistics.intervals import mean_interval

STRONGEST = 0.5
"""The dropout rate that is compared with none."""

SHORT_RANKS, GOOD_R2 = (10, 32), 0.95
"""The refits: half the range of ranks, and only fits above this R2."""


def dropout_claims(spectra: pd.DataFrame) -> Iterator[Claim]:
    """Yield C3.4 for each kind of network: with dropout the exponent rises and the participation ratio falls."""
    for kind, rows in spectra.groupby("network", sort=False):
        for column, sign, what in (("alpha", 1, "alpha"), ("relative_pr", -1, "participation ratio / units")):
            change = sign * changes(rows, column)
            per_layer = {layer: sign * float(values.mean()) for layer, values in change.items() if values.notna().any()}
            agreeing = sum(sign * value > 0 for value in per_layer.values())
            yield judged_over(
                f"C3.4 ({kind}, {what})",
                f"dropout makes the code of {kind}s more redundant: "
                + ("a faster decay" if sign > 0 else "fewer dimensions that share the variance"),
                f"{what} at dropout {STRONGEST} {'minus' if sign > 0 else 'taken from'} that at 0, mean over the "
                f"{_counted(change)}, above 0; {len(change)} seeds",
                change.mean(axis=1),
                threshold=0.0,
                note=f"{agreeing} of {len(per_layer)} layers go this way{_unfitted(change)}; change of {what} by "
                "layer: "
                + ", ".join(f"{layer} {value:+.3f}" for layer, value in per_layer.items())
                + ". That a faster decay means more redundancy is our reading, not a published sign.",
            )


def changes(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the change of ``column`` by the strongest dropout, ``[seeds, layers]``; NaN where either is unknown.

    ``rows`` are those of one kind of network, with ``seed, dropout, layer`` and ``column``.
    """
    wide = rows.pivot_table(index="seed", columns=["dropout", "layer"], values=column, sort=False, dropna=False)
    change = wide[STRONGEST] - wide[0.0]
    return change[list(dict.fromkeys(rows["layer"]))].rename(columns=lambda layer: layer.split(".")[-1])


def refits(spectra: pd.DataFrame) -> pd.DataFrame:
    """Return the change of alpha under other ranks, and with good fits alone: a row per kind and refit.

    Fits are plain: the bootstrap's correction needs the samples.
    """
    out = []
    for kind, rows in spectra.groupby("network", sort=False):
        for ranks in (RANKS, SHORT_RANKS):
            for least in (None, GOOD_R2):
                alpha = [_exponent(values, ranks, least) for values in rows["eigenvalues"]]
                change = changes(rows.assign(alpha=alpha), "alpha")
                known = change.mean(axis=1).dropna().to_numpy()
                low, high = mean_interval(known)
                out.append(
                    {
                        "network": kind,
                        "ranks": f"{ranks[0]} to {ranks[1]}",
                        "fits that count": "all" if least is None else f"R2 > {least}",
                        "pairs": f"{int(change.notna().to_numpy().sum())} of {change.size}",
                        "change of alpha": known.mean() if len(known) else np.nan,
                        "low": low,
                        "high": high,
                        "verdict": verdict((low, high), 0.0),
                    }
                )
    return pd.DataFrame(out)


def refit_section(refitted: pd.DataFrame) -> Section:
    """Return the section on how the verdict of C3.4 depends on the fit."""
    shown = refitted.rename(columns={"low": "95 % low", "high": "95 % high"})
    return Section(
        "How far C3.4 goes with the fit",
        f"""
Computed after the verdicts above were known, so it changes none of them: the change of alpha from dropout 0 to
{STRONGEST}, mean over the layers that count in both, over ranks {RANKS[0]} to {RANKS[1]} as above and over
{SHORT_RANKS[0]} to {SHORT_RANKS[1]}, with all fits and with those whose line explains more than {GOOD_R2:.0%} of the
variance of the logarithms. Plain fits, without the bootstrap's correction. A pair is a layer of a seed with both.

{{refits}}
""",
        tables={"refits": shown},
    )


def refit_lesson(refitted: pd.DataFrame, spectra: pd.DataFrame) -> str:
    """Return the caveat of C3.4, one or two sentences for each kind of network."""
    lines = []
    for kind, rows in refitted.groupby("network", sort=False):
        figures = "; ".join(
            f"ranks {row.ranks}, {row.counted}: {row.change:.2f} [{row.low:.2f}, {row.high:.2f}], {row.verdict}"
            for row in rows.rename(columns={"fits that count": "counted", "change of alpha": "change"}).itertuples()
        )
        verdicts = set(rows["verdict"])
        goes = "goes with the fit" if len(verdicts) > 1 else "is the same under every fit"
        lines.append(f"- **The verdict of C3.4 ({kind}, alpha) {goes}.** Refitted after the fact: {figures}.")
        own = spectra[(spectra["network"] == kind) & (spectra["refusal"] == "")]
        worst = own.groupby("layer", sort=False)["r2"].min()
        poor = own[own["layer"] == worst.idxmin()]
        if worst.min() < GOOD_R2:
            lines[-1] += (
                f" The poorest lines are those of {worst.idxmin().split('.')[-1]} (R2 {poor['r2'].min():.2f} to "
                f"{poor['r2'].max():.2f}, alpha {poor['alpha'].min():.1f} to {poor['alpha'].max():.1f}): such a "
                "spectrum is no power law."
            )
        if (rows["change of alpha"] < 0).all():
            lines[-1] += " What can be said is that nothing here supports a steeper decay under dropout."
    return "\n".join(lines)


def _exponent(eigenvalues: object, ranks: tuple[int, int], least_r2: float | None) -> float:
    """Return the plain exponent over ``ranks``; NaN if the spectrum is too narrow or the fit too poor."""
    if rank_of(eigenvalues) < ranks[1]:
        return float("nan")
    fit = fit_power_law(eigenvalues, ranks)
    return float("nan") if least_r2 is not None and fit.r2 <= least_r2 else fit.alpha


def _counted(change: pd.DataFrame) -> str:
    """Return the number of layers in the mean of each seed, in words."""
    known = change.notna().sum(axis=1)
    if (known == change.shape[1]).all():
        return f"{change.shape[1]} layers"
    few = f"{known.min()}" if known.min() == known.max() else f"{known.min()} to {known.max()}"
    return f"layers that were fitted in both ({few} of {change.shape[1]})"


def _unfitted(change: pd.DataFrame) -> str:
    """Return the layers that are missing from the mean of any seed, in words; empty if none is."""
    known = change.notna().sum()
    missing = [f"{layer} in {len(change) - n} of {len(change)} seeds" for layer, n in known.items() if n < len(change)]
    return f" (not fitted in both, for dead units: {', '.join(missing)})" if missing else ""
