"""A replication's page: the command that repeats it, its claims, figures and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.papers.common import claims as claims_
from benchmarks.papers.common.claims import Claim
from benchmarks.papers.common.scale import Scale

DOCS = Path(__file__).parents[3] / "docs" / "papers"


@dataclass(frozen=True)
class Seconds:
    """Time of the run without training, and time of training; a cached network counts with its time at training."""

    protocol: float
    training: float = 0.0

    def __str__(self) -> str:
        training = f"training, which took {_duration(self.training)} by the clock"
        return f"{_duration(self.protocol)} on one core without {training}"


@dataclass(frozen=True)
class Section:
    """A heading, Markdown text, tables by name (also written as CSV) and figures by name (written as PNG).

    A line ``{name}`` in the text is replaced by that table or figure; those without a line follow the text.
    ``captions`` are the captions of figures, by name.
    """

    heading: str
    text: str
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)


def write_page(
    name: str,
    title: str,
    *,
    command: str,
    seconds: Seconds,
    sections: Sequence[Section],
    claims: Sequence[Claim],
    scale: Scale,
    introduction: str = "",
    folder: Path | None = None,
) -> Path:
    """Write ``NAME.md``, ``NAME.csv`` (a row per claim) and ``NAME/`` (PNGs, CSVs) into ``docs/papers``.

    At quick scale they go into a temporary folder. The path of the page is printed.
    """
    if folder is None:
        folder = Path(mkdtemp(prefix=f"papers-{name}-")) if scale is Scale.QUICK else DOCS
    (folder / name).mkdir(parents=True, exist_ok=True)
    claims_.to_frame(claims).to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    parts = [
        f"# {title}",
        introduction.strip(),
        f"To repeat: `{command}` ({seconds}).",
        "## Claims and verdicts",
        "A claim *holds* if the 95 % interval of our figure lies beyond the threshold, *fails* if it lies beyond it "
        "the other way, and is *undecided* else; a claim of several parts holds if all do and fails if any does. "
        "*Reported* means that no threshold was set beforehand.",
        claims_.table(claims).strip(),
        *(_written(section, folder, name) for section in sections),
    ]
    page = folder / f"{name}.md"
    page.write_text("\n\n".join(part for part in parts if part) + "\n")
    print(f"wrote {page}")
    return page


def markdown(frame: pd.DataFrame) -> str:
    """Return ``frame`` as a Markdown table; floats have three digits, NaN is empty."""
    lines = ["| " + " | ".join(map(str, frame.columns)) + " |", "|" + " --- |" * len(frame.columns)]
    for row in frame.itertuples(index=False):
        lines.append("| " + " | ".join(_text(value) for value in row) + " |")
    return "\n".join(lines)


def _written(section: Section, folder: Path, name: str) -> str:
    blocks: dict[str, str] = {}
    for table, frame in section.tables.items():
        frame.to_csv(folder / name / f"{table}.csv", index=False, float_format="%.6g")
        blocks[table] = markdown(frame)
    for figure, drawn in section.figures.items():
        drawn.savefig(folder / name / f"{figure}.png", dpi=110, metadata={"Software": None})
        blocks[figure] = f"![{section.captions.get(figure, figure)}]({name}/{figure}.png)"
        if figure in section.captions:
            blocks[figure] += f"\n\n*{section.captions[figure]}*"
    placed, text = set(), section.text.strip()
    for key, block in blocks.items():
        pattern = re.compile(rf"^\{{{re.escape(key)}\}}$", re.MULTILINE)
        if pattern.search(text):
            text = pattern.sub(lambda _match, block=block: block, text)
            placed.add(key)
    rest: Iterable[str] = (block for key, block in blocks.items() if key not in placed)
    return "\n\n".join(part for part in (f"## {section.heading}", text, *rest) if part)


def _text(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.3f}"
    return str(value).replace("|", "\\|")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
