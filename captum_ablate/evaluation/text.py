"""The leaderboard as aligned text and as a LaTeX table, and the verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from captum_ablate.evaluation.claims import PLAIN, Headings
from captum_ablate.evaluation.pairs import Pairs
from captum_ablate.evaluation.provenance import Provenance
from captum_ablate.inputs.wording import columns, counted, distinct, isolated, listed, number, visible
from captum_ablate.statistics.intervals import LEVEL

MOST_COLUMNS = 40
"""Columns that a method's name may take; a longer one is shortened in the middle."""

_LATEX = {c: rf"\{c}" for c in "#$%&_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def as_text(shown: pd.DataFrame, headings: Headings = PLAIN, width: int | None = None) -> str:
    """Return the table as aligned text: words to the left, numbers to the right, intervals after their value.

    An interval that does not exist (of one sample, of one random order) is left out. So are, from the right, columns
    for which ``width`` columns of a terminal have no room, until there are three: rank, method and gap.
    """
    parts: list[list[str]] = []
    for name in shown.columns:
        if name.endswith(("_low", "_high")):
            continue
        texts = [value if isinstance(value, str) else number(name, value) for value in shown[name]]
        if name == "method":
            texts = distinct(texts, MOST_COLUMNS)
        heading = headings.rank if name == "rank" else name.replace("_", " ")
        if f"{name}_low" in shown and not shown[[f"{name}_low", f"{name}_high"]].isna().all(axis=None):
            ends = zip(texts, shown[f"{name}_low"], shown[f"{name}_high"], strict=True)
            texts = [text if np.isnan(low + high) else f"{text} [{low:.3f}, {high:.3f}]" for text, low, high in ends]
            heading += f" [{headings.interval}]" if name == "gap" else " [95 %]"
        widest = max(map(columns, [heading, *texts]))
        spaces = [" " * (widest - columns(text)) for text in (heading, *texts)]
        is_word = name in ("rank", "method")
        cells = zip((heading, *texts), spaces, strict=True)
        parts.append([isolated(text) + space if is_word else space + text for text, space in cells])
    while width is not None and len(parts) > 3 and sum(columns(part[0]) + 2 for part in parts) - 2 > width:
        parts.pop()
    return "\n".join("  ".join(row).rstrip() for row in zip(*parts, strict=True))


def as_latex(shown: pd.DataFrame, headings: Headings = PLAIN, comments: Sequence[str] = ()) -> str:
    """Return the table for LaTeX with booktabs' rules; rows whose rank may be the first are bold.

    ``comments`` stand above it, for the author to read.
    """
    names = [name for name in shown.columns if not name.endswith(("_low", "_high"))]
    lines = [
        *(f"% {comment}" for comment in comments),
        r"\begin{tabular}{" + "".join("l" if name in ("rank", "method") else "r" for name in names) + "}",
        r"\toprule",
        " & ".join(_heading(shown, name, headings) for name in names) + r" \\",
        r"\midrule",
    ]
    for row in shown.to_dict("records"):
        cells = [_latex_cell(row, name) for name in names]
        if row["rank"].split("-")[0] == "1":
            cells = [rf"\textbf{{\boldmath {cell}}}" for cell in cells]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _heading(shown: pd.DataFrame, name: str, headings: Headings) -> str:
    if name == "rank":
        return headings.rank
    interval = headings.level.replace(" %", r"\,\%") if name == "gap" else r"95\,\%"
    return name.replace("_", " ") + (f" [{interval}]" if f"{name}_low" in shown else "")


def _latex_cell(row: Mapping[Any, Any], name: str) -> str:
    value = row[name]
    if name == "rank":
        return str(value).replace("-", "--")
    if isinstance(value, str):
        return "".join(_LATEX.get(c, c) for c in visible(value))
    text = _latex_number(name, value)
    ends = [row.get(end, np.nan) for end in (f"{name}_low", f"{name}_high")]
    if np.isnan(ends).any():
        return text
    low, high = (_latex_number(name, end) for end in ends)
    return f"{text} [{low}, {high}]"


def _latex_number(name: str, value: float) -> str:
    text = number(name, value)
    return f"${text}$" if text else "--"


def verdict(board: pd.DataFrame, pairs: Pairs, provenance: Provenance, at_chance: bool = False) -> str:
    """Return who finds the units best, and how many methods beat random orders, in one to three sentences."""
    best = [row["method"] for row in board.to_dict("records") if row["rank"].split("-")[0] == "1"]
    sentences = [_winners(best, board, pairs, "" if provenance.ranking_resamples else " in these rankings")]
    if provenance.in_sample:
        sentences.append(
            "The ranking was made on the samples that are evaluated, so this says nothing about other samples."
        )
    elif provenance.overlaps:
        sentences.append("Evaluated samples were ranked on too, so no p against random orders holds.")
    elif provenance.n_random and provenance.sampled is None:
        beyond = int((board["p"] <= 1 - LEVEL).sum())
        of = f"{beyond} of {counted(len(board), 'method')}" if len(board) > 1 else ("It" if beyond else "It does not")
        beats = "beat" if beyond != 1 and len(board) > 1 else "beats"
        if len(board) == 1 and not beyond:
            beats = "beat"
        sentences.append(f"{of} {beats} random orders (5 %, corrected for the number of methods).")
    if at_chance:
        sentences.append("The intact network is at chance, so this says nothing about what its units do.")
    return " ".join(sentences)


def _winners(best: Sequence[str], board: pd.DataFrame, pairs: Pairs, where: str) -> str:
    first = board.iloc[0]
    gap = f"gap {number('gap', first['gap'])} [{number('gap', first['gap_low'])}, {number('gap', first['gap_high'])}]"
    if len(board) == 1:
        return f"{visible(first['method'])} has a {gap}."
    if len(best) > 1:
        return f"The data cannot tell which of {listed(best)} finds the units best{where}."
    second = board.iloc[1]["method"]
    lead = pairs.difference(pairs.names.index(first["method"]), pairs.names.index(second))
    sure = f", p {number('p', lead.p)}" if not np.isnan(lead.p) else ""
    return (
        f"{visible(first['method'])} finds the units best{where}: {gap}, {number('gap', lead.value)} "
        f"[{number('gap', lead.interval.low)}, {number('gap', lead.interval.high)}] above {visible(second)}{sure}."
    )
