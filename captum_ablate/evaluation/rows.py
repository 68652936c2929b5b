"""Rows of the leaderboard: what it says of one curve."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from captum_ablate.evaluation.curve import DeficitCurve
from captum_ablate.evaluation.within_layers import WithinLayers
from captum_ablate.evaluation.yardstick import has_shares, share_of
from captum_ablate.statistics.intervals import NO_INTERVAL, Interval


def row_of(rank: str, curve: DeficitCurve, yardstick: DeficitCurve | None) -> dict[str, Any]:
    """Return the row of a curve, with its share where there is a yardstick."""
    row = {
        "rank": rank,
        "method": curve.name,
        **_with_ends("gap", curve.gap, curve.gap_interval),
        **_with_ends("deletion", curve.deletion, curve.deletion_interval),
        **_with_ends("insertion", curve.insertion, curve.insertion_interval),
        "z": curve.z,
        "p": curve.p,
        "p_raw": curve.p_raw,
        "p_exact": curve.p_exact,
        "ties": curve.ties,
        "resamples": len(curve.resampled_areas),
        "seconds": curve.provenance.ranking_seconds.get(curve.name, np.nan),
    }
    return row if yardstick is None else row | _with_ends("share", *share_of(curve, yardstick))


def with_yardstick(board: pd.DataFrame, yardstick: DeficitCurve | None) -> pd.DataFrame:
    """Return the rows of the methods, and below them that of the yardstick: no rank, and no correction for it."""
    if yardstick is None:
        return board.copy()
    last = row_of("-", yardstick, None) | {"p": np.nan, "resamples": 0}
    last |= _with_ends("share", 1.0 if has_shares(yardstick) else np.nan, NO_INTERVAL)
    return pd.concat([board, pd.DataFrame([last])], ignore_index=True)


def within_columns(within: WithinLayers | None) -> dict[str, float]:
    """Return what the row of a method over several layers says of its order within each layer."""
    return {} if within is None else {"gap_within": within.gap, "z_within": within.z, "p_within": within.p}


def _with_ends(name: str, value: float, interval: Interval) -> dict[str, float]:
    return {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high}
