"""Results as Markdown tables, for the terminal and for the pages in docs."""

from __future__ import annotations

import pandas as pd


def markdown(table: pd.DataFrame, digits: int = 3) -> str:
    """Return ``table`` in Markdown, without its index; floats have ``digits`` significant digits."""

    def shown(value: object) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"

    rows = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    rows += [[shown(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
