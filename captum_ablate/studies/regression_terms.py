"""From a frame of groups to the terms of a regression: columns checked, groups found, predictors standardised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from captum_ablate.studies.linear_models import Blocks

STRATA = ("network", "layer", "class")
"""Columns within which groups are exchanged, where the frame has them."""
SCALES = ("network", "layer")
"""Columns within which selectivity and activity are standardised: activities of two layers have no common unit."""


def check_columns(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise unless the frame has these columns, finite throughout; the last one holds numbers of units above 0."""
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"frame must be a DataFrame with a row per group; got {type(frame).__name__}")
    if missing := [name for name in columns if name not in frame]:
        raise ValueError(
            f"the frame has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, frame.columns))}"
        )
    values = frame[list(columns)].to_numpy(np.float64)
    if not np.isfinite(values).all():
        bad = [name for name, fine in zip(columns, np.isfinite(values).all(axis=0), strict=True) if not fine]
        raise ValueError(f"the columns {', '.join(map(repr, bad))} hold values that are not finite; drop those rows")
    if (frame[columns[-1]] <= 0).any():
        raise ValueError(f"{columns[-1]!r} must be numbers of units above 0; got {frame[columns[-1]].min()}")


def strata_of(frame: pd.DataFrame, asked: Sequence[str] | None) -> tuple[str, ...]:
    """Return the columns whose combinations are strata: ``asked``, or those of ``STRATA`` that the frame has."""
    if asked is None:
        return tuple(name for name in STRATA if name in frame)
    if missing := [name for name in asked if name not in frame]:
        raise ValueError(f"strata must be columns of the frame; it has no {', '.join(map(repr, missing))}")
    return tuple(asked)


def blocks_of(
    frame: pd.DataFrame, strata: tuple[str, ...], groups: Sequence[str] | None, *, selectivity: str, size: str
) -> Blocks:
    """Return the rows of each group as a block.

    Blocks are exchanged within the strata that do not vary inside a group. The others, such as the class, tell a
    group's rows apart. Without ``groups``, rows with one ``group``, size and selectivity are a group.

    Raises:
        ValueError: if there is no such column, or no two blocks can be exchanged.
    """
    if groups is None:
        names = ["group", size, selectivity] if "group" in frame else []
    else:
        names = [groups] if isinstance(groups, str) else list(groups)
    if missing := [name for name in names if name not in frame]:
        raise ValueError(f"groups must be columns of the frame; it has no {', '.join(map(repr, missing))}")
    keys = [*names, *(name for name in SCALES if name in frame and name not in names)] if names else []
    group = _numbers(frame, keys) if names else np.arange(len(frame))
    inner = [name for name in strata if (frame.groupby(group)[name].nunique(dropna=False) > 1).any()]
    outer = [name for name in strata if name not in inner]
    blocks = Blocks.of(_numbers(frame, outer), group, _numbers(frame, inner))
    if max(np.bincount(blocks.kind)) < 2:
        within = f" of {', '.join(strata)}" if strata else ""
        what = "one row" if len(blocks.rows) == len(frame) else "one group of its classes"
        raise ValueError(f"every stratum{within} has {what} only, so there is nothing to permute")
    return blocks


def _numbers(frame: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of each row's combination of ``columns``, ``[n]``; 0 without columns."""
    if not columns:
        return np.zeros(len(frame), dtype=np.int64)
    return np.asarray(frame.groupby(list(columns), dropna=False).ngroup(), dtype=np.int64)


def regression_terms(frame: pd.DataFrame, selectivity: str, activity: str, size: str) -> dict[str, NDArray[np.float64]]:
    """Return the terms of the models, each ``[n]``; selectivity and activity are standardised before their product."""
    scales = [name for name in SCALES if name in frame]
    s, a = (_standardised(frame, name, scales) for name in (selectivity, activity))
    return {
        "constant": np.ones(len(frame)),
        "selectivity": s,
        "activity": a,
        "log size": np.log(frame[size].to_numpy(np.float64)),
        "product": s * a,
    }


def _standardised(frame: pd.DataFrame, column: str, within: list[str]) -> NDArray[np.float64]:
    """Return the column with mean 0 and standard deviation 1 within each combination of ``within``."""
    values = frame[column].astype(np.float64)
    grouped = values.groupby([frame[name] for name in within]) if within else values.groupby(np.zeros(len(values)))
    spread = grouped.transform(lambda part: part.std(ddof=0))
    size = grouped.transform(lambda part: part.abs().max())
    if (spread <= 1e-12 * size).any():
        raise ValueError(
            f"{column!r} does not vary within every {' and '.join(within) or 'frame'}, so it predicts nothing"
        )
    return ((values - grouped.transform("mean")) / spread).to_numpy()
