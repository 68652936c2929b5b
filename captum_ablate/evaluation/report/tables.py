"""Frames as tables of a page: names and numbers as text, an interval beside its value."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real

import pandas as pd

from captum_ablate.evaluation.claims import PLAIN, Headings
from captum_ablate.inputs.wording import number, visible

SIGNED = str.maketrans("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Column:
    """Heading of a column, what its intervals are, and whether it holds numbers, or names of rows."""

    name: str
    interval: str
    is_numeric: bool
    is_name: bool


@dataclass(frozen=True)
class Cell:
    """Text of a value, and of its interval where it has one."""

    value: str
    interval: str = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows of cells, under a ``caption``."""

    caption: str
    columns: list[Column]
    rows: list[list[Cell]]

    @classmethod
    def of(cls, frame: pd.DataFrame, caption: str, headings: Headings = PLAIN) -> Table:
        """Return the table of a frame: ``x, x_low, x_high`` become one column; an index of names is one, too.

        The first column of words, but for ranks, names the rows.
        """
        numbered = isinstance(frame.index, pd.RangeIndex) and frame.index.name is None
        frame = frame if numbered else frame.reset_index()
        ends = {end for name in frame.columns for end in _ends(name) if _has_interval(frame, name)}
        shown = [name for name in frame.columns if name not in ends]
        words = [name for name in shown if name != "rank" and not pd.api.types.is_numeric_dtype(frame[name])]
        columns = [
            Column(
                headings.rank if name == "rank" else str(name).replace("_", " "),
                (headings.level if name == "gap" else "95 %") if _is_known(frame, name) else "",
                pd.api.types.is_numeric_dtype(frame[name]),
                name in words[:1],
            )
            for name in shown
        ]
        rows = [[_cell(row, name) for name in shown] for row in frame.to_dict("records")]
        return cls(caption, columns, rows)


def signed(text: str) -> str:
    """Return a number's text with a true minus sign.

    >>> from captum_ablate.evaluation.report.tables import signed
    >>> signed("-0.1") == "\N{MINUS SIGN}0.1"
    True
    """
    return text.translate(SIGNED)


def _ends(name: object) -> tuple[str, str]:
    return f"{name}_low", f"{name}_high"


def _has_interval(frame: pd.DataFrame, name: object) -> bool:
    return set(_ends(name)) <= set(frame.columns)


def _is_known(frame: pd.DataFrame, name: object) -> bool:
    """Tell whether a column has an interval in some row."""
    return _has_interval(frame, name) and not frame[list(_ends(name))].isna().all(axis=None)


def _cell(row: dict[object, object], name: object) -> Cell:
    low, high = (_text(name, row.get(end)) for end in _ends(name))
    return Cell(_text(name, row[name]), f"[{low}, {high}]" if low + high else "")


def _text(column: object, value: object) -> str:
    """Return a float as ``wording.number`` writes it, NaN as nothing, others as they are."""
    if isinstance(value, Integral) or not isinstance(value, Real):
        return "" if value is None else visible(value)
    return signed(number(str(column), float(value)))
