"""Does a filter's score predict the drop when it is ablated? C1.5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks.papers.common.claims import Claim, all_of, judged, with_interval
from benchmarks.papers.common.data import first, images
from benchmarks.papers.common.page import Section
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.conductance.methods import BATCH, METHODS
from benchmarks.papers.conductance.subjects import Subject
from captum_ablate.inputs.batches import as_batches
from captum_ablate.statistics.activations import activations
from captum_ablate.statistics.intervals import Floats, mean_interval
from captum_ablate.studies import (
    DeficitCorrelation,
    deficit_correlation,
    plot_correlations,
    spearman_rows,
    unit_drops,
)

ZERO, BASELINE = "zero", "its value at the baseline"
"""Reference values of an ablated filter."""


@dataclass(frozen=True)
class Correlations:
    """Correlations by method for one layer of one network and one reference; the images are the same for all."""

    subject: Subject
    layer: str
    reference: str
    by_method: Mapping[str, DeficitCorrelation]


def correlations(subject: Subject, scale: Scale) -> list[Correlations]:
    """Correlate the scores of each method with measured drops, for the two middle layers."""
    data = tuple(first(images("cifar10").evaluate, scale.pick(20, 60, 1_000)))
    found = []
    for name, layer in subject.middle.items():
        zeroed = unit_drops(subject.network, layer, data)
        scored = {
            method: deficit_correlation(
                m.make(subject.network, layer),
                data,
                drops=zeroed,
                positions=m.positions,
                batch_size=BATCH,
                **m.options,
            )
            for method, m in METHODS.items()
        }
        found.append(Correlations(subject, name, ZERO, scored))
        drops = unit_drops(subject.network, layer, data, reference=at_baseline(subject, layer))
        found.append(Correlations(subject, name, BASELINE, {m: _with(c, drops) for m, c in scored.items()}))
    return found


def at_baseline(subject: Subject, layer: nn.Module) -> Tensor:
    """Return the output of the layer for the baseline of the path, the zero image."""
    image = torch.zeros_like(images("cifar10").evaluate.images[:1])
    batches = as_batches((image, torch.zeros(1, dtype=torch.int64)), forward_func=subject.network)
    _, ((activation,),) = next(activations(subject.network, [layer], batches, torch.clone))
    baseline: Tensor = activation
    return baseline


def _with(correlation: DeficitCorrelation, drops: Tensor) -> DeficitCorrelation:
    """Return the correlation of the same scores with other drops."""
    values = spearman_rows(correlation.scores, drops)
    return replace(correlation, values=values, drops=drops, reference=BASELINE)


def section(found: Sequence[Correlations]) -> Section:
    """Return the section: a table by network, layer and method, and a picture of each kind of network."""
    return Section(
        "Does the score tell what ablation costs",
        """
Per image, Spearman's correlation over filters of the score with the drop of the label's logit when that filter alone
is zeroed, all measured. Images are the same for all methods; an image whose drops are all equal would be left out.

{correlation}

{correlation-table}

Gradient x activation has a reason to do well here: to first order it *is* the drop, y dF/dy = F(y) - F(0), exactly
where what follows is linear. And conductance has a reason to do worse: it shares out F(x) - F(x'), so it answers for a
filter's way from its value at the baseline, not from zero. The second row of each layer asks it its own question: a
filter is set to what it gives for the baseline image.
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
                "ablated to": one.reference,
                **{m: with_interval(c.mean, c.interval, digits=2) for m, c in one.by_method.items()},
            }
            for one in found
        ]
    )


def figure(found: Sequence[Correlations]) -> Figure:
    of_zero = [c for c in found if c.reference == ZERO]
    shown = {(c.subject.kind, c.layer): c for c in reversed(of_zero)}  # the first seed of each
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
        _against(found, "C1.5a", "internal influence", ZERO, ""),
        _against(found, "C1.5b", "activation", ZERO, ""),
        _against(
            found,
            "C1.5c",
            "gradient x activation",
            ZERO,
            "gradient x activation approximates the drop to first order, so no more than a tie is to be expected",
        ),
        _against(
            found,
            "C1.5d",
            "internal influence",
            BASELINE,
            "our addition, made after a first look at 16 images of one network",
        ),
        _against(found, "C1.5e", "gradient x activation", BASELINE, "our addition, as C1.5d"),
    ]


def _against(found: Sequence[Correlations], id: str, rival: str, reference: str, note: str) -> Claim:
    found = [one for one in found if one.reference == reference]
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
            f"Conductance correlates better with measured drops than {rival}"
            + ("" if reference == ZERO else ", a filter being ablated to its value at the baseline"),
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
