"""Check network after network, smallest first, and keep each result: a stopped sweep continues where it was."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import pandas as pd

from benchmarks.zoo.check import Row, check
from benchmarks.zoo.networks import size_of

CACHE = Path.home() / ".cache" / "captum_ablate" / "torchvision.csv"


def sweep(chosen: Sequence[str], state: Path, budget_gb: float, *, quick: bool = False) -> pd.DataFrame:
    """Check the networks that are missing in the file ``state``, smallest first, and return all rows."""
    state.parent.mkdir(parents=True, exist_ok=True)
    sizes = {name: size_of(name) for name in set(chosen) - set(kept(state).network)}
    for name in sorted(sizes, key=lambda name: (sizes[name][0] * sizes[name][1] ** 2, name)):
        parameters, side = sizes[name]
        needed = 1 + 2.5 * parameters * 4 / 1e9  # weights, a copy of them, and what the allocator keeps
        start = time.perf_counter()
        if needed > min(budget_gb, _available_gb()):
            new = [Row(name, parameters, side, "", result="not run", execution=f"needs {needed:.0f} GB")]
        else:
            new = list(check(name, quick=quick))
        pd.concat([kept(state), pd.DataFrame([asdict(row) for row in new])]).to_csv(state, index=False)
        results = ", ".join(f"{row.layer} {row.result} ({row.execution})" for row in new)
        print(
            f"{name} ({parameters / 1e6:.0f} M, {side} px, {time.perf_counter() - start:.0f} s): {results}", flush=True
        )
        gc.collect()
    rows = kept(state)
    return rows[rows.network.isin(chosen)]


def kept(state: Path) -> pd.DataFrame:
    """Return the rows that sweeps have written into the file ``state``."""
    if not state.exists():
        return pd.DataFrame(columns=[field.name for field in fields(Row)])
    texts = [field.name for field in fields(Row) if field.type == "str"]
    rows = pd.read_csv(state, dtype=dict.fromkeys(texts, object))
    return rows.fillna(dict.fromkeys(texts, "")).drop_duplicates(["network", "layer"], keep="last")


def _available_gb() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")  # not Linux: the budget alone decides
    return next(float(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1e6
