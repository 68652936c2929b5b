"""Heat maps as tables: a number in each cell, and a shade of blue (above 0) or orange (below) behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from captum_ablate.evaluation.report.tables import signed
from captum_ablate.inputs.wording import number, visible

DARKEST = 0.55
"""Opacity behind the largest number: the text on it keeps a contrast of over 4.5 in both colour schemes."""


@dataclass(frozen=True)
class Shaded:
    """Text of a cell, the opacity of its shade, whether that is of a negative number, and whether it is marked."""

    text: str
    opacity: float = 0.0
    is_negative: bool = False
    is_marked: bool = False


@dataclass(frozen=True)
class HeatMap:
    """Rows of shaded cells under a ``caption``.

    Where columns ``are_rows``, as in a correlation map, their headings are the numbers of these rows.
    ``above`` is a row that is not shaded, with a name of its own.
    """

    caption: str
    corner: str
    columns: list[str]
    rows: list[tuple[str, list[Shaded]]]
    are_rows: bool = False
    above: tuple[str, list[str]] | None = None

    @classmethod
    def of(
        cls,
        values: NDArray[np.float64],
        rows: Sequence[object],
        columns: Sequence[object],
        caption: str,
        *,
        corner: str,
        are_rows: bool = False,
        marked: NDArray[np.bool_] | None = None,
        above: tuple[str, Sequence[float]] | None = None,
        by_column: bool = False,
    ) -> HeatMap:
        """Return the map of ``values [rows, columns]``, NaN left empty; ``marked`` cells are bold with a star.

        The darkest shade is that of the largest value, of each column where these do not compare (``by_column``).
        """
        sizes = np.nan_to_num(np.abs(values)).max(axis=0 if by_column else None, initial=0.0, keepdims=True)
        shades = np.nan_to_num(DARKEST * np.abs(values) / np.where(sizes > 0, sizes, 1.0))
        stars = np.zeros(values.shape, dtype=bool) if marked is None else marked
        cells = [
            [_shaded(*one) for one in zip(*line, strict=True)]
            for line in zip(values.tolist(), shades.tolist(), stars.tolist(), strict=True)
        ]
        top = None if above is None else (above[0], [signed(number("gap", value)) for value in above[1]])
        names = [visible(row) for row in rows]
        return cls(
            caption,
            corner,
            [visible(one) for one in columns],
            list(zip(names, cells, strict=True)),
            are_rows,
            top,
        )


def _shaded(value: float, opacity: float, is_marked: bool) -> Shaded:
    if not np.isfinite(value):
        return Shaded("")
    return Shaded(signed(f"{round(value, 2) + 0.0:.2f}"), round(opacity, 3), value < 0, is_marked)
