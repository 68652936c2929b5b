"""How few filters carry a prediction? C1.6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure

from benchmarks.papers.common.claims import Claim, all_of, judged, judged_over, with_interval
from benchmarks.papers.common.page import Section
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.conductance.methods import BATCH, CONTROL, METHODS
from benchmarks.papers.conductance.subjects import Subject
from captum_ablate.statistics.intervals import mean_interval
from captum_ablate.studies import FlipCounts, plot_flips, units_to_flip

LIMIT = 50
"""Most filters that are zeroed for one image."""

FEW = 0.02
"""Share of the filters that counts as few."""


@dataclass(frozen=True)
class Flips:
    """Counts by method for one network: ``together`` over all layers of filters, ``alone`` in one late layer."""

    subject: Subject
    together: Mapping[str, FlipCounts]
    alone: Mapping[str, FlipCounts]


def flips(subject: Subject, scale: Scale) -> Flips:
    """Count the filters to flip for images that the network classifies correctly."""
    data = subject.correct(scale.pick(12, 40, 500))

    def counted(layers: Sequence[torch.nn.Module]) -> dict[str, FlipCounts]:
        return {
            name: units_to_flip(
                [method.make(subject.network, layer) for layer in layers],
                tuple(data),
                limit=LIMIT,
                positions=method.positions,
                batch_size=BATCH,
                **method.options,
            )
            for name, method in {**METHODS, **CONTROL}.items()
        }

    return Flips(subject, counted(subject.layers), counted([list(subject.middle.values())[-1]]))


def section(found: Sequence[Flips]) -> Section:
    """Return the section: a table by network and method, and a picture for each kind of network."""
    kinds = list(dict.fromkeys(f.subject.kind for f in found))
    return Section(
        "How few filters carry a prediction",
        f"""
For each image that a network gets right, filters are zeroed in the descending order of the image's own scores (of the
predicted class's logit) until another class is predicted, at most {LIMIT}. All filters of all convolutional layers are
ranked together, as in the paper as it is summarised to us ("5-10 of 5,484" filters of an Inception network; not
comparable in number); the table adds one late layer alone. Scores are summed over positions, activations averaged
(ours: sums would put the layers with large maps first). Images that have not flipped by {LIMIT} are *censored*: a
median is infinite where that are more than half.

{{flips}}

{{flips-table}}
""",
        tables={"flips-table": table(found)},
        figures={"flips": figure(found, kinds)},
        captions={
            "flips": "Share of images with another prediction against filters ablated, all networks of a kind "
            "together; bands are 95 % intervals over images, a bar at the end of a curve stands for censored images."
        },
    )


def table(found: Sequence[Flips]) -> pd.DataFrame:
    rows = []
    for one in found:
        for where, counts in (("all layers", one.together), (list(one.subject.middle)[-1], one.alone)):
            for method, c in counts.items():
                low, high = c.median_interval
                rows.append(
                    {
                        "network": one.subject.name,
                        "layers": where,
                        "filters": c.units,
                        "method": method,
                        "median filters [95 %]": f"{c.median:g} [{low:g}, {high:g}]",
                        "flipped by 10": f"{c.flipped(min(10, c.limit)):.0%}",
                        "censored": f"{int(c.censored.sum())} of {len(c.counts)}",
                    }
                )
    return pd.DataFrame(rows)


def figure(found: Sequence[Flips], kinds: Sequence[str]) -> Figure:
    drawn, axes = plt.subplots(1, len(kinds), figsize=(6.4 * len(kinds), 4.8), layout="constrained", squeeze=False)
    for ax, kind in zip(axes[0], kinds, strict=True):
        own = [f.together for f in found if f.subject.kind == kind]
        plot_flips({method: _joined([counts[method] for counts in own]) for method in own[0]}, ax)
        ax.set_xlabel(f"filters ablated, of {next(iter(own[0].values())).units} in all layers")
        ax.set_title(f"{kind}: images flipped by ablating their own top filters", loc="left", fontsize=11)
    return drawn


def claims(found: Sequence[Flips]) -> list[Claim]:
    """Return C1.6, judged in every network, and conductance against its rivals."""
    joined = _by_kind(found)
    rivals = ("gradient x activation", "internal influence", "activation")
    return [
        _few(found, joined),
        replace(
            _fewer(
                "C1.6b",
                "Random filters flip far later",
                f"random minus conductance, mean filters to flip (censored at {LIMIT}, so at least), above 0 in every "
                "network",
                found,
                "random",
            ),
            figure=_differences(joined, "random", digits=1, unit="filters more"),
        ),
        *[
            replace(
                _fewer(
                    f"C1.6{letter}",
                    f"Conductance needs fewer filters than {method}",
                    f"{method} minus conductance, mean filters to flip, paired over images, above 0 in every network",
                    found,
                    method,
                    note="not a claim of the paper that we know of; ours",
                ),
                figure=_differences(joined, method, digits=2),
            )
            for letter, method in zip("cde", rivals, strict=True)
        ],
    ]


def _few(found: Sequence[Flips], joined: Mapping[str, Mapping[str, FlipCounts]]) -> Claim:
    """Return C1.6a: the median number of filters that conductance needs."""
    parts = []
    for one in found:
        counts = one.together["conductance"]
        limit = FEW * counts.units
        parts.append(
            judged(
                "C1.6",
                "",
                "",
                mean=counts.median,
                interval=counts.median_interval,
                threshold=limit,
                direction="below",
            )
        )
    medians = "; ".join(
        f"{kind}: median {counts['conductance'].median:g} of {counts['conductance'].units} filters, random "
        f"{_or_more(counts['random'])}"
        for kind, counts in joined.items()
    )
    claim = all_of(
        "C1.6a",
        "A few filters carry a prediction (conductance)",
        f"median filters to flip at most {FEW:.0%} of all filters, interval over images, in every network",
        parts,
    )
    return replace(claim, figure=f"{medians}; {_count(parts)} networks")


def _fewer(id: str, statement: str, check: str, found: Sequence[Flips], rival: str, note: str = "") -> Claim:
    """Return the claim that ``rival`` needs more filters than conductance in every network."""
    parts = [
        judged_over(id, "", "", _more(one.together[rival], one.together["conductance"]), threshold=0) for one in found
    ]
    return all_of(id, statement, check, parts, note=note)


def _differences(joined: Mapping[str, Mapping[str, FlipCounts]], rival: str, *, digits: int, unit: str = "") -> str:
    """Return how many filters more ``rival`` needs than conductance, for each kind of network."""
    return "; ".join(
        f"{kind}: {with_interval(*_mean(_more(counts[rival], counts['conductance'])), digits=digits, unit=unit)}"
        for kind, counts in joined.items()
    )


def _more(other: FlipCounts, one: FlipCounts) -> list[float]:
    return (other.counts - one.counts).double().tolist()


def _mean(values: list[float]) -> tuple[float, object]:
    array = torch.tensor(values, dtype=torch.float64).numpy()
    return float(array.mean()), mean_interval(array)


def _or_more(counts: FlipCounts) -> str:
    return f"{counts.median:g}" if counts.median <= counts.limit else f"over {counts.limit}"


def _count(parts: Sequence[Claim]) -> str:
    return f"holds in {sum(p.verdict == 'holds' for p in parts)} of {len(parts)}"


def _by_kind(found: Sequence[Flips]) -> dict[str, dict[str, FlipCounts]]:
    kinds = dict.fromkeys(f.subject.kind for f in found)
    return {
        kind: {
            method: _joined([f.together[method] for f in found if f.subject.kind == kind])
            for method in found[0].together
        }
        for kind in kinds
    }


def _joined(parts: Sequence[FlipCounts]) -> FlipCounts:
    """Return the images of several networks of one kind as one sample."""
    return replace(
        parts[0],
        **{
            key: torch.cat([getattr(part, key) for part in parts])
            for key in ("counts", "censored", "predicted", "target")
        },
    )
