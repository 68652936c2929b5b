"""The table of a result that notebooks show, as a fragment of HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from captum_ablate.evaluation.claims import PLAIN, Headings
from captum_ablate.evaluation.curve import GAP_MEANING
from captum_ablate.evaluation.report.pages import ENVIRONMENT
from captum_ablate.evaluation.report.tables import Table
from captum_ablate.inputs.wording import visible


def table_html(
    leaderboard: pd.DataFrame,
    header: str,
    failed: Mapping[str, str],
    notes: Sequence[str] = (),
    *,
    headings: Headings = PLAIN,
    footnotes: Sequence[str] = (GAP_MEANING,),
) -> str:
    """Return the leaderboard as an HTML fragment, with ``notes`` above it and ``footnotes`` under it.

    Columns ``x, x_low, x_high`` become one, written as ``0.214 [0.197, 0.231]``; an index of names is shown. Names are
    written in full; what cannot be seen in them is written as in Python.
    """
    return ENVIRONMENT.get_template("fragment.html").render(
        header=header,
        notes=notes,
        table=Table.of(leaderboard, "Leaderboard", headings),
        failed=[(visible(name), reason) for name, reason in failed.items()],
        footnotes=footnotes,
    )
