"""The page over all papers: what each claims, what we ran, what held; and all attributions in one table.

``python -m benchmarks.papers index`` takes seconds, because it reads what the other commands wrote: a row per claim in
``docs/papers/NAME.csv``, the table of attributions, and the Markdown files in ``docs/papers/index/``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import pandas as pd

from benchmarks.papers.common.page import DOCS
from benchmarks.papers.common.scale import Scale
from benchmarks.papers.index.attributions import MEASURED, share_heatmap

VERDICTS = ("holds", "fails", "undecided", "reported")


@dataclass(frozen=True)
class Paper:
    """A paper in two sentences: its claims (from its abstract, or a review of it), and what we ran."""

    name: str
    title: str
    claims: str
    ran: str


PAPERS = (
    Paper(
        "amjad",
        "Amjad, Liu and Geiger: Understanding Neural Networks and Individual Neuron Importance via "
        "Information-Ordered Cumulative Ablation (IEEE TNNLS 2022, arXiv 1804.06679)",
        "Layer by layer, mutual information with the class and KL selectivity are tied to a neuron's "
        "importance in ReLU networks; over the whole network class selectivity is not a good indicator, so "
        "scores should not be compared across layers.",
        "ReLU, tanh and sigmoid networks of two hidden layers on MNIST, Fashion-MNIST and CIFAR-10, ablated "
        "in the order of four quantities, by layer and pooled.",
    ),
    Paper(
        "dhamdhere",
        "Dhamdhere, Sundararajan and Yan: How Important Is a Neuron? (ICLR 2019, arXiv 1805.12233)",
        "Conductance is complete, predicts the effect of ablation better than its rivals, finds the better "
        "features for a linear classifier, and shows a division of labour in a sentiment network.",
        "Flips, per-image correlation and feature selection on CIFAR-10 networks; a Kim-style network on "
        "movie reviews.",
    ),
    Paper(
        "hayne",
        "Hayne, Suresh, Jain, Kumar and Carter: Much Easier Said Than Done: Falsifying the Causal Relevance "
        "of Linear Decoding Methods (arXiv 2211.04367)",
        "Class selectivity alone is a poor guide to a unit's causal role; its interaction with activity says "
        "more, and linear probes share little with ablation.",
        "Groups of units by selectivity and activity, ablated against random groups of their size, on "
        "CIFAR-10 networks and an ImageNet-pretrained one.",
    ),
    Paper(
        "marshall",
        "Marshall and Kirchner: Understanding polysemanticity in neural networks through coding theory (arXiv "
        "2401.17975)",
        "The eigenspectrum of a layer's activations shows how redundant its code is, random projections how "
        "smooth; dropout makes codes redundant.",
        "Recovery of known spectra and slopes, spectra over depth of autoencoders with dropout and of "
        "classifiers, and error correction by a copying network.",
    ),
    Paper(
        "omahony",
        "O'Mahony, Nikolov and O'Sullivan: Towards Utilising a Range of Neural Activations for Comprehending "
        "Representational Associations (WACV 2025, arXiv 2411.10019)",
        "Samples with mid-range logits show a network's spurious associations, and retraining the last layer "
        "on them mitigates those.",
        "Drawn shapes with a position bias, coloured MNIST and MNIST-on-CIFAR dominoes: retraining sets of "
        "several kinds by worst-group accuracy.",
    ),
)

_INTRODUCTION = """
# What was learned from five papers

Five papers say which units of a network matter, or what the code of a layer is like. Each runs here on real data, at a
size that a laptop can repeat, and each claim gets a verdict by its 95 % interval: *holds*, *fails*, or *undecided*;
*reported* where no threshold was set beforehand. A claim that fails here fails at this size, for these networks and for
our reading of the paper: we had abstracts (and one review), not full texts.
"""

_HARNESS = """
## Which attribution finds the units that a network needs?

To repeat: `python -m benchmarks.papers attributions`, then `python -m benchmarks.papers index`.

Every attribution ranks the units of one hidden layer on 300 test images; the ranking is evaluated on 1,000 others, in
10 steps, by accuracy. The figure is the gap with its 95 % interval over images: how much more accuracy is lost when the
units ranked highest go first than when they go last (area between the curves; a random order has 0 in expectation).
**Bold**: no other method beats it (paired t over images, Holm over all pairs of the column, 5 %). One network per
column, so the intervals say nothing about other seeds. {measured} measures each unit alone with the column's reference
and is a yardstick more than an attribution.
"""


def run(scale: Scale) -> None:
    """Write ``docs/papers/index.md`` from the results that exist; at quick scale into a temporary folder."""
    target = Path(mkdtemp(prefix="papers-index-")) if scale is Scale.QUICK else DOCS
    print(f"wrote {write_index(DOCS, target)}")


def write_index(source: Path, target: Path) -> Path:
    """Write ``index.md`` into ``target`` from the pages and figures in ``source``; return it."""
    (target / "index").mkdir(parents=True, exist_ok=True)
    verdicts = {paper.name: frame for paper in PAPERS if (frame := _verdicts(source, paper.name)) is not None}
    parts = [_INTRODUCTION.strip(), _overview(verdicts)]
    parts += [_paper(paper, verdicts.get(paper.name)) for paper in PAPERS]
    attributions = source / "index" / "attributions.csv"
    if attributions.is_file():
        parts += _harness(pd.read_csv(attributions), target)
    parts += [fragment.read_text().strip() for fragment in sorted((source / "index").glob("*.md"))]
    page = target / "index.md"
    page.write_text("\n\n".join(parts) + "\n")
    return page


def _verdicts(source: Path, name: str) -> pd.DataFrame | None:
    """Return the claims of a paper, one row each; their parts stand on the paper's own page."""
    file = source / f"{name}.csv"
    if not file.is_file():
        return None
    frame = pd.read_csv(file, keep_default_na=False)
    return frame[frame["part_of"] == ""]


def _overview(verdicts: dict[str, pd.DataFrame]) -> str:
    lines = ["| paper | claims checked | " + " | ".join(VERDICTS) + " |", "|" + " --- |" * (2 + len(VERDICTS))]
    for paper in PAPERS:
        frame = verdicts.get(paper.name)
        if frame is None:
            continue
        counts = [int((frame["verdict"] == verdict).sum()) for verdict in VERDICTS]
        lines.append(f"| [{paper.name}]({paper.name}.md) | {len(frame)} | " + " | ".join(map(str, counts)) + " |")
    return "\n".join(lines)


def _paper(paper: Paper, verdicts: pd.DataFrame | None) -> str:
    parts = [f"## {paper.title}", f"**Claims.** {paper.claims}", f"**What we ran.** {paper.ran}"]
    if verdicts is None:
        return "\n\n".join([*parts, f"Not run yet: `python -m benchmarks.papers {paper.name}`."])
    parts[-1] += f" [All figures]({paper.name}.md), by `python -m benchmarks.papers {paper.name}`."
    names = {
        "holds": "What held",
        "fails": "What did not",
        "undecided": "Undecided",
        "reported": "Reported, not judged",
    }
    for verdict, name in names.items():
        rows = verdicts[verdicts["verdict"] == verdict]
        if len(rows):
            claims = [f"- {row.id}: {row.statement} ({row.figure})" for row in rows.itertuples()]
            parts.append(f"**{name}.**\n\n" + "\n".join(claims))
    return "\n\n".join(parts)


def _harness(frame: pd.DataFrame, target: Path) -> Iterator[str]:
    yield _HARNESS.strip().format(measured=MEASURED.capitalize())
    yield "### Over all networks and references\n\n" + _summary(frame)
    share_heatmap(frame).savefig(target / "index" / "attributions.png", dpi=110, metadata={"Software": None})
    caption = "Gap divided by the accuracy lost with every unit ablated; a dot marks what no other method beats."
    yield f"![{caption}](index/attributions.png)\n\n*{caption}*"
    for reference, rows in frame.groupby("reference", sort=False):
        yield f"### Gap with {reference} reference\n\n" + _gap_table(rows)


def order_of(frame: pd.DataFrame) -> list[str]:
    """Return the methods by their mean share of the gap over all settings, largest first."""
    return list(frame.groupby("method")["share"].mean().sort_values(ascending=False).index)


def _summary(frame: pd.DataFrame) -> str:
    settings = frame.groupby(["network", "reference"]).ngroups
    lines = [
        f"| method | unbeaten in (of {settings}) | mean share of the gap | lowest share | "
        "better than every random order in | seconds to rank, mean |",
        "|" + " --- |" * 6,
    ]
    chance = frame["p"].min()  # 1 / (orders + 1): no random order reached it
    for method in order_of(frame):
        rows = frame[frame["method"] == method]
        best, beyond = int(rows["unbeaten"].sum()), int((rows["p"] <= chance + 1e-9).sum())
        shares = f"{rows['share'].mean():.3f} | {rows['share'].min():.3f}"
        lines.append(f"| {method} | {best} | {shares} | {beyond} | {rows['seconds'].mean():.1f} |")
    return "\n".join(lines)


def _gap_table(rows: pd.DataFrame) -> str:
    networks = list(dict.fromkeys(rows["network"]))
    about = [rows[rows["network"] == network].iloc[0] for network in networks]
    heads = [f"{a['network']} ({a['layer']}, {a['units']} units, {a['accuracy']:.3f})" for a in about]
    lines = ["| method | " + " | ".join(heads) + " |", "|" + " --- |" * (1 + len(heads))]
    by_place = rows.set_index(["method", "network"])
    for method in order_of(rows):
        cells = [_cell(by_place.loc[(method, network)]) for network in networks]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(row: pd.Series) -> str:
    gap = f"{row['gap']:.3f}"
    return f"{f'**{gap}**' if row['unbeaten'] else gap} [{row['low']:.3f}, {row['high']:.3f}]"
