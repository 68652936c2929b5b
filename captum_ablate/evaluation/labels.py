"""Text as a label of a picture: any name stands there as it is, never as mathematics or TeX."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import wrap

import matplotlib as mpl
from matplotlib.axes import Axes

from captum_ablate.inputs.wording import columns, distinct, visible

LINE, LINES = 28, 3
"""Characters of one line of a method's label, and lines at most; longer names are shortened in the middle."""

_TEX = {c: rf"\{c}" for c in "#$%&_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\^{}"}


def label(text: object) -> str:
    """Return ``text`` for matplotlib to draw as it is: ``$`` starts no formula, an underscore first hides nothing.

    Lines stay; other characters that cannot be seen are written as in Python. Where ``text.usetex`` is set, what TeX
    would read as commands is escaped.
    """
    drawn = "\n".join(visible(line) if line.strip() else "" for line in str(text).split("\n"))
    if mpl.rcParams["text.usetex"]:
        return "".join(_TEX.get(c, c) for c in drawn)
    drawn = drawn.replace("$", r"\$")
    return f" {drawn}" if drawn.startswith("_") else drawn  # a legend leaves such labels out


def plain(drawn: str) -> str:
    """Return the text that ``label`` was made from, as a reader sees it."""
    return drawn.replace(r"\$", "$")


def wrapped(text: str, line: int) -> str:
    """Return ``text`` in lines of at most ``line`` columns, as a label."""
    narrow = max(1, line * len(text) // max(1, columns(text)))  # wide characters take two columns
    parts = [part for one in text.split("\n") for part in wrap(one, narrow, break_on_hyphens=False) or [""]]
    return label("\n".join(parts))


def name_labels(names: Iterable[object], line: int = LINE, lines: int = LINES) -> list[str]:
    """Return a label for each of the ``names``, all different, in at most ``lines`` lines."""
    return [wrapped(text, line) for text in distinct(names, line * lines - lines)]


def headed(ax: Axes, title: str, *notes: str, size: float = 12) -> None:
    """Write a bold title at the left above ``ax``, in as many lines as it needs, and ``notes`` below it."""
    inches = ax.get_window_extent().width / ax.figure.dpi
    size = size if inches > 5 else min(size, 9)  # in a row of axes, long titles would run into each other
    below = "\n".join(wrapped(note, max(24, int(inches * 16))) for note in notes if note)
    ax.set_title(
        wrapped(title, max(20, int(inches * 120 / size))),
        loc="left",
        pad=8 + (12 * (below.count("\n") + 1) if below else 0),
        fontweight="bold",
        fontsize=size,
    )
    if below:
        ax.annotate(below, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize="small")
