"""What a run prints: one comparison that fits the terminal, or several in a table of all gaps."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from shutil import get_terminal_size

from captum_ablate.evaluation.comparison import Comparison
from captum_ablate.inputs.wording import columns, counted, distinct, listed, number, visible

BEST = "*"

WIDEST = 32
"""Columns that a method's name may take."""


def printed(comparison: Comparison) -> str:
    """Return the comparison as text; in a terminal, its table has the columns that there is room for."""
    return comparison.to_text(get_terminal_size().columns if sys.stdout.isatty() else None)


def summary(done: Mapping[tuple[str, str], Comparison]) -> str:
    """Return the table and, in a sentence, who is among the best in most of the comparisons, by layer and reference."""
    boards = [_board(comparison) for comparison in done.values()]
    methods = list(dict.fromkeys(name for board in boards for name in board))
    best = {name: sum(board[name].endswith(BEST) for board in boards if name in board) for name in methods}
    methods.sort(key=lambda name: -best[name])
    shown = distinct(methods, WIDEST)
    width = max(map(columns, shown))
    heads = [f"[{k}]" for k in range(1, len(boards) + 1)]
    lines = [f"{head} {layer}, {reference} reference" for head, (layer, reference) in zip(heads, done, strict=True)]
    lines += ["", " ".join(["gap".ljust(width), *(head.rjust(7) for head in heads), "   best"])]
    for name, text in zip(methods, shown, strict=True):
        cells = [board.get(name, "- ").rjust(7) for board in boards]
        lines.append(" ".join([text + " " * (width - columns(text)), *cells, f"{best[name]}/{len(boards)}".rjust(7)]))
    lines += [f"{BEST} among the best: the data cannot tell it from the best one"]
    failed = {name: reason for comparison in [*done.values()][::-1] for name, reason in comparison.failed.items()}
    lines += [f"not applicable: {visible(name)} ({' '.join(reason.split())})" for name, reason in failed.items()]
    lines += ["", _verdict(best, len(boards))]
    return "\n".join(lines)


def _board(comparison: Comparison) -> dict[str, str]:
    """Return the gap of each method as text, with a star where its rank may be the first."""
    rows = comparison.leaderboard.to_dict("records")
    return {r["method"]: number("gap", r["gap"]) + (BEST if r["rank"].split("-")[0] == "1" else " ") for r in rows}


def _verdict(best: Mapping[str, int], comparisons: int) -> str:
    most = max(best.values())
    leading = [name for name, times in best.items() if times == most]
    verb = "is" if len(leading) == 1 else "are"
    where = (
        f"all {comparisons} comparisons" if most == comparisons else f"{most} of {counted(comparisons, 'comparison')}"
    )
    return f"{listed(leading)} {verb} among the best in {where}" + (
        ", more than any other." if most < comparisons else "."
    )
