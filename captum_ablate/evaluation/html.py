"""A comparison as HTML: one self-contained page, and the table that notebooks show."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from numbers import Integral, Real

import pandas as pd
from jinja2 import Environment
from matplotlib.figure import Figure

from captum_ablate.evaluation.claims import PLAIN, Headings
from captum_ablate.evaluation.curve import GAP_MEANING
from captum_ablate.evaluation.labels import plain
from captum_ablate.inputs.wording import number, visible

_ENVIRONMENT = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)

_TABLE = _ENVIRONMENT.from_string("""\
<div class="captum-ablate">
<style>
.captum-ablate .wide { overflow-x: auto; }
.captum-ablate table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6em 0; }
.captum-ablate table th, .captum-ablate table td { padding: .3em .9em .3em 0; text-align: left;
  white-space: nowrap; border: 0; border-bottom: 1px solid rgba(128, 128, 128, .3);
  background: none; color: inherit; }
.captum-ablate table th { font-weight: 600; border-bottom: 2px solid rgba(128, 128, 128, .6); }
.captum-ablate table .number { text-align: right; }
.captum-ablate table .interval { opacity: .65; font-size: .88em; }
.captum-ablate table .name { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 9em; max-width: 24em; }
.captum-ablate p { overflow-wrap: anywhere; }
.captum-ablate .cue { display: none; }
@media (max-width: 46rem) {
  .captum-ablate .cue { display: block; }
  .captum-ablate table .interval { display: block; }
  .captum-ablate table th, .captum-ablate table td { padding-right: .6em; vertical-align: top; }
}
.captum-ablate .warning { font-weight: 600; }
.captum-ablate .note { opacity: .75; font-size: .9em; margin: .3em 0; }
</style>
<p>{{ header }}</p>
{% for note in notes %}
<p class="warning">{{ note }}</p>
{% endfor %}
<p class="note cue">{{ columns | length }} columns: scroll the table sideways for all of them \N{RIGHTWARDS ARROW}</p>
<div class="wide">
<table>
<thead><tr>
{% for column in columns %}
<th{{ ' class="number"' | safe if column.numeric }}>{{ column.name }}\
{% if column.interval %} <span class="interval">[{{ column.interval }}]</span>{% endif %}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in rows %}
<tr>
{% for column, cell in row %}
<td{{ ' class="number"' | safe if column.numeric }}{{ ' class="name" dir="auto"' | safe if column.is_name }}>\
{{ cell.value }}\
{% if column.interval %} <span class="interval">{{ cell.interval }}</span>{% endif %}</td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
{% for name, reason in failed %}
<p class="note"><b>not applicable:</b> <bdi>{{ name }}</bdi> ({{ reason }})</p>
{% endfor %}
{% for footnote in footnotes %}
<p class="note">{{ footnote }}</p>
{% endfor %}
</div>
""")

_PAGE = _ENVIRONMENT.from_string("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --ink: #1d2530; --paper: #fdfdfc; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe3e8; --paper: #171a1f; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 68rem; margin: 3rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem; }
.lead { font-size: 1.1rem; max-width: 46rem; }
figure { margin: 2rem 0; }
figure img { max-width: 100%; background: #fff; border-radius: 6px; padding: 10px; box-sizing: border-box; }
.cue { display: none; opacity: .75; font-size: .9em; }
@media (max-width: 46rem) {
  body { margin: 1.5rem auto; padding: 0 1rem; }
  figure { overflow-x: auto; }
  figure img { max-width: none; width: 46rem; }
  .cue { display: block; }
}
@media print { body { margin: 0; max-width: none; } figure { break-inside: avoid; } }
</style>
</head>
<body>
<h1>{{ title }}</h1>
{% if lead %}<p class="lead">{{ lead }}</p>
{% endif %}
{{ table | safe }}
{% for picture in pictures %}
{% if picture.data %}
<p class="cue">scroll the picture sideways to see all of it \N{RIGHTWARDS ARROW}</p>
<figure><img alt="{{ picture.about }}" src="data:image/png;base64,{{ picture.data }}"></figure>
{% else %}
<p class="missing">{{ picture.about }}</p>
{% endif %}
{% endfor %}
</body>
</html>
""")


@dataclass(frozen=True)
class Picture:
    """Words of what a picture is ``about``, and its PNG as base64 text; without ``data``, why there is none."""

    about: str
    data: str = ""

    @classmethod
    def of(cls, figure: Figure) -> Picture:
        """Return the picture of ``figure``, described by its titles."""
        return cls(_alt(figure), _png(figure))


def render(title: str, table: str, pictures: Sequence[Picture], lead: str = "") -> str:
    """Return one HTML page that needs no other file: the leaderboard (a fragment of ``table_html``) and pictures."""
    return _PAGE.render(title=title, lead=lead, table=table, pictures=pictures)


def table_html(
    leaderboard: pd.DataFrame,
    header: str,
    failed: dict[str, str],
    notes: Sequence[str] = (),
    *,
    headings: Headings = PLAIN,
    footnotes: Sequence[str] = (GAP_MEANING,),
) -> str:
    """Return the leaderboard as an HTML fragment, with ``notes`` above it and ``footnotes`` under it.

    Columns ``x, x_low, x_high`` become one, written as ``0.214 [0.197, 0.231]``; an index of names is shown. Names are
    written in full; what cannot be seen in them is written as in Python.
    """
    numbered = isinstance(leaderboard.index, pd.RangeIndex) and leaderboard.index.name is None
    frame = leaderboard if numbered else leaderboard.reset_index()
    ends = {end for name in frame.columns for end in _ends(name) if _has_interval(frame, name)}
    columns = [
        {
            "name": headings.rank if name == "rank" else str(name).replace("_", " "),
            "interval": (headings.level if name == "gap" else "95 %") if _is_known(frame, name) else "",
            "is_name": not pd.api.types.is_numeric_dtype(frame[name]) and name != "rank",
            "numeric": pd.api.types.is_numeric_dtype(frame[name]),
        }
        for name in frame.columns
        if name not in ends
    ]
    rows = [
        list(zip(columns, [_cell(row, name) for name in frame.columns if name not in ends], strict=True))
        for row in frame.to_dict("records")
    ]
    named = [(visible(name), reason) for name, reason in failed.items()]
    return _TABLE.render(header=header, notes=notes, columns=columns, rows=rows, failed=named, footnotes=footnotes)


def _ends(name: object) -> tuple[str, str]:
    return f"{name}_low", f"{name}_high"


def _has_interval(frame: pd.DataFrame, name: object) -> bool:
    return set(_ends(name)) <= set(frame.columns)


def _is_known(frame: pd.DataFrame, name: object) -> bool:
    """Tell whether a column has an interval in some row."""
    return _has_interval(frame, name) and not frame[list(_ends(name))].isna().all(axis=None)


def _cell(row: dict[object, object], name: object) -> dict[str, str]:
    low, high = (_text(name, row.get(end)) for end in _ends(name))
    return {"value": _text(name, row[name]), "interval": f"[{low}, {high}]" if low + high else ""}


def _text(column: object, value: object) -> str:
    """Return a float as ``labels.number`` writes it, with a true minus sign, NaN as nothing, others as they are."""
    if isinstance(value, Integral) or not isinstance(value, Real):
        return "" if value is None else visible(value)
    return number(str(column), float(value)).replace("-", "\N{MINUS SIGN}")


def _png(figure: Figure) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=150, bbox_inches="tight", facecolor="white")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _alt(figure: Figure) -> str:
    """Return the titles in a figure, which say what it shows."""
    titles = (axes.get_title(loc) for axes in figure.axes for loc in ("left", "center", "right"))
    return "; ".join(" ".join(plain(title).split()) for title in titles if title)
