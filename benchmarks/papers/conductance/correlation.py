"""Does a filter's score tell what its ablation costs: C1.5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from benchmarks.papers.claims import Claim, all_of, judged, with_interval
from benchmarks.papers.conductance.methods import BATCH, METHODS
from benchmarks.papers.conductance.subjects import Subject
from benchmarks.papers.data import first, images
from benchmarks.papers.page import Section
from benchmarks.papers.scale import Scale
from captum_ablate.intervals import Floats, mean_interval
from captum_ablate.studies import DeficitCorrelation, deficit_correlation, plot_correlations, unit_drops


@dataclass(frozen=True)
class Correlations:
    """Correlations by method for one layer of one network, on the same images."""

    subject: Subject
    layer: str
    by_method: Mapping[str, DeficitCorrelation]


def correlations(subject: Subject, scale: Scale) -> list[Correlations]:
    """Return what each method's scores have to do with measured drops, for the two middle layers."""
    data = tuple(first(images("cifar10").evaluate, scale.pick(20, 100, 500)))
    found = []
    for name, layer in subject.middle.items():
        drops = unit_drops(subject.network, layer, data, metric="logit")
        by_method = {
            method: deficit_correlation(
                m.make(subject.network, layer),
                data,
                drops=drops,
                positions=m.positions,
                batch_size=BATCH,
                **m.options,
            )
            for method, m in METHODS.items()
        }
        found.append(Correlations(subject, name, by_method))
    return found


def section(found: Sequence[Correlations]) -> Section:
    """Return the table by network, layer and method, and a picture of the first network of each kind."""
    return Section(
        "Does the score tell what ablation costs",
        """
Per image, Spearman's correlation over filters of the score with the drop of the label's logit when that filter alone
is zeroed, all measured. Images are the same for all methods; an image whose drops are all equal would be left out.

{correlation}

{correlation-table}

Gradient x activation has a reason to do well here: to first order it *is* the drop, y dF/dy = F(y) - F(0), exactly
where what follows is linear. A tie with conductance is no failure of conductance but of the question.
""",
        tables={"correlation-table": table(found)},
        figures={"correlation": figure(found)},
        captions={"correlation": "One point an image; black: 95 % interval of the mean (white dot) over images."},
    )


def table(found: Sequence[Correlations]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "network": one.subject.name,
                "layer": one.layer,
                **{m: with_interval(c.mean, c.interval, digits=2) for m, c in one.by_method.items()},
            }
            for one in found
        ]
    )


def figure(found: Sequence[Correlations]) -> Figure:
    shown = {(c.subject.kind, c.layer): c for c in reversed(found)}  # the first seed of each
    drawn, axes = plt.subplots(len(shown), 1, figsize=(9, 2.6 * len(shown)), layout="constrained", squeeze=False)
    for ax, one in zip(axes[:, 0], reversed(list(shown.values())), strict=True):
        plot_correlations(one.by_method, ax)
        ax.set_title(f"{one.subject.name}, {one.layer}", loc="left", fontsize=11)
        if ax is not axes[-1, 0]:
            ax.set_xlabel("")
    return drawn


def claims(found: Sequence[Correlations]) -> list[Claim]:
    """Return C1.5 against each rival: paired over images, in every layer of every network."""
    return [
        _against(found, "C1.5a", "internal influence", ""),
        _against(found, "C1.5b", "activation", ""),
        _against(
            found,
            "C1.5c",
            "gradient x activation",
            "a tie is to be expected: gradient x activation approximates the drop to first order",
        ),
    ]


def _against(found: Sequence[Correlations], id: str, rival: str, note: str) -> Claim:
    parts = []
    for one in found:
        difference = _difference(one, rival)
        parts.append(
            judged(id, "", "", mean=float(difference.mean()), interval=mean_interval(difference), threshold=0.0)
        )
    means = {
        kind: np.array([float(_difference(one, rival).mean()) for one in found if one.subject.kind == kind])
        for kind in dict.fromkeys(one.subject.kind for one in found)
    }
    figures = "; ".join(f"{kind}: {m.mean():+.2f} (from {m.min():+.2f} to {m.max():+.2f})" for kind, m in means.items())
    counts = ", ".join(
        f"{sum(p.verdict == v for p in parts)} {v}" for v in ("holds", "fails", "undecided")
        if any(p.verdict == v for p in parts)
    )  # fmt: skip
    return replace(
        all_of(
            id,
            f"Conductance correlates better with measured drops than {rival}",
            "difference of Spearman's correlations, paired over images, above 0 in both layers of every network",
            parts,
            note=note,
        ),
        figure=f"{figures}; {counts} of {len(parts)}",
    )


def _difference(one: Correlations, rival: str) -> Floats:
    ours, theirs = one.by_method["conductance"].values, one.by_method[rival].values
    both = torch.isfinite(ours) & torch.isfinite(theirs)
    array: Floats = (ours - theirs)[both].numpy()
    return array
