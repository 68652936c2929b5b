"""A claim of a paper, our check of it, and a verdict by its interval alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from math import isnan
from typing import Literal

import numpy as np
import pandas as pd

from captum_ablate.statistics.intervals import Interval, mean_interval

Verdict = Literal["holds", "fails", "undecided", "reported"]
Direction = Literal["above", "below"]


@dataclass(frozen=True)
class Claim:
    """One claim with its verdict.

    ``statement`` is the claim, ``check`` our test of it, ``figure`` the outcome as text. The verdict compares
    ``interval``, at 95 %, with ``threshold``; it is "reported" if no threshold was set beforehand. ``part_of`` is the
    id of the claim that this one is a part of, if any: counts of claims leave parts out.
    """

    id: str
    statement: str
    check: str
    figure: str
    interval: Interval | None
    threshold: float
    verdict: Verdict
    note: str = ""
    part_of: str = ""


def verdict(interval: Interval, threshold: float, direction: Direction = "above") -> Verdict:
    """Return "holds" if the interval lies ``direction`` of the threshold, "fails" if on the other side.

    Otherwise, and for an interval of NaN, return "undecided".
    """
    if direction not in ("above", "below"):
        raise ValueError(f'direction must be "above" or "below"; got {direction!r}')
    low, high = interval
    if isnan(low) or isnan(high):
        return "undecided"
    if direction == "below":
        low, high, threshold = -high, -low, -threshold
    if low > threshold:
        return "holds"
    return "fails" if high < threshold else "undecided"


def judged(
    id: str,
    statement: str,
    check: str,
    *,
    mean: float,
    interval: Interval,
    threshold: float,
    direction: Direction = "above",
    unit: str = "",
    digits: int = 3,
    note: str = "",
) -> Claim:
    """Return the claim that ``mean`` lies ``direction`` of ``threshold``, judged by ``interval``."""
    return Claim(
        id,
        statement,
        check,
        with_interval(mean, interval, unit=unit, digits=digits),
        interval,
        threshold,
        verdict(interval, threshold, direction),
        note,
    )


def judged_over(
    id: str,
    statement: str,
    check: str,
    values: Iterable[float],
    *,
    threshold: float,
    direction: Direction = "above",
    unit: str = "",
    digits: int = 3,
    note: str = "",
) -> Claim:
    """Return the claim that the mean of ``values``, one per seed, lies beyond ``threshold``; Student's t interval."""
    array = np.asarray(list(values), dtype=np.float64)
    return judged(
        id,
        statement,
        check,
        mean=float(array.mean()),
        interval=mean_interval(array),
        threshold=threshold,
        direction=direction,
        unit=unit,
        digits=digits,
        note=note,
    )


def all_of(id: str, statement: str, check: str, parts: Iterable[Claim], *, note: str = "") -> Claim:
    """Join ``parts``: holds if all hold, fails if any fails, else undecided. The figure counts the verdicts."""
    verdicts = [part.verdict for part in parts]
    if not verdicts:
        raise ValueError(f"claim {id} is joined from at least one part; got none")
    count = ", ".join(f"{verdicts.count(v)} {v}" for v in ("holds", "fails", "undecided", "reported") if v in verdicts)
    joined: Verdict = "undecided"
    if "fails" in verdicts:
        joined = "fails"
    elif all(v == "holds" for v in verdicts):
        joined = "holds"
    return Claim(id, statement, check, f"of {len(verdicts)}: {count}", None, float("nan"), joined, note)


def with_parts(joined: Claim, parts: Iterable[Claim]) -> Iterator[Claim]:
    """Yield a claim made by ``all_of``, then its ``parts``, which say whose parts they are."""
    yield joined
    for part in parts:
        yield replace(part, part_of=joined.id)


def reported(
    id: str,
    statement: str,
    check: str,
    *,
    figure: str,
    interval: Interval | None = None,
    note: str = "",
) -> Claim:
    """Return a claim that has a figure but, by plan, no threshold."""
    return Claim(id, statement, check, figure, interval, float("nan"), "reported", note)


def with_interval(mean: float, interval: Interval, *, unit: str = "", digits: int = 3) -> str:
    """Return ``0.123 [0.100, 0.146] unit``."""
    low, high = interval
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" + (f" {unit}" if unit else "")


def table(claims: Iterable[Claim]) -> str:
    """Return the claims as a Markdown table, with their notes below."""
    claims = list(claims)
    lines = ["| claim | check | our figure [95 % interval] | verdict |", "| --- | --- | --- | --- |"]
    for claim in claims:
        cells = (f"{claim.id}: {claim.statement}", claim.check, claim.figure, f"**{claim.verdict}**")
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    notes = [f"- {claim.id}: {claim.note}" for claim in claims if claim.note]
    return "\n".join(lines + (["", *notes] if notes else [])) + "\n"


def to_frame(claims: Iterable[Claim]) -> pd.DataFrame:
    """Return one row per claim: id, statement, check, figure, low, high, threshold, verdict, note, part_of."""
    rows = []
    for claim in claims:
        row = asdict(claim)
        row.pop("interval")
        low, high = claim.interval or (float("nan"), float("nan"))
        rows.append({**row, "low": low, "high": high})
    columns = ["id", "statement", "check", "figure", "low", "high", "threshold", "verdict", "note", "part_of"]
    return pd.DataFrame(rows, columns=columns)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
