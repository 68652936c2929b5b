"""Time several runs of the same work in turns, so that a noisy machine disturbs all of them alike."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.tables import markdown

CPU = torch.device("cpu")
CACHE = Path.home() / ".cache" / "captum_ablate" / "benchmarks"


@dataclass(frozen=True)
class Options:
    """The options of a benchmark; ``only`` selects the cases whose name contains it."""

    images: int
    batch: int
    rounds: int
    only: str
    out: Path
    device: torch.device

    @classmethod
    def parse(
        cls, name: str, doc: str | None, arguments: Sequence[str] | None, *, images: int = 64, batch: int = 16
    ) -> Options:
        """Return the options of the command line of the benchmark ``name``."""
        parser = argparse.ArgumentParser(description=doc)
        parser.add_argument("--images", type=int, default=images)
        parser.add_argument("--batch", type=int, default=batch)
        parser.add_argument("--rounds", type=int, default=3)
        parser.add_argument("--only", default="", help="cases whose network and layer contain this")
        parser.add_argument("--device", type=torch.device, default=CPU, help="cpu or cuda")
        parser.add_argument("--out", type=Path, default=CACHE / f"{name}.csv", help="the CSV file of results")
        return cls(**vars(parser.parse_args(arguments)))

    def __str__(self) -> str:
        return (
            f"{self.images} images in batches of {self.batch}, {device_name(self.device)}, {clock_name(self.device)}, "
            f"median of {self.rounds} rounds in turns"
        )


def device_name(device: torch.device) -> str:
    """Return the number of threads, or the GPU and whether its convolutions use TF32."""
    if device.type == "cpu":
        return f"{torch.get_num_threads()} threads"
    is_fast = torch.backends.cudnn.allow_tf32 and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"
    return f"{torch.cuda.get_device_name(device)} with {'TF32' if is_fast else 'no TF32'}"


def seconds(device: torch.device = CPU) -> float:
    """Return CPU time with one thread, which other processes do not disturb, else wall time; in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.process_time() if _is_of_processor(device) else time.perf_counter()


def clock_name(device: torch.device = CPU) -> str:
    """Return the name of the clock of ``seconds``."""
    return "processor time" if _is_of_processor(device) else "wall time"


def _is_of_processor(device: torch.device) -> bool:
    return device.type == "cpu" and torch.get_num_threads() == 1


def in_turns(
    rounds: int, runs: Mapping[str, Callable[[], Any]], device: torch.device = CPU
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Call every run once per round; return their seconds ``[rounds]`` and their last results."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    results = {}
    for _ in range(rounds):
        for name, run in runs.items():
            start = seconds(device)
            results[name] = run()
            times[name].append(seconds(device) - start)
    return {name: np.array(spent) for name, spent in times.items()}, results


def geometric_mean(ratios: pd.Series) -> float:
    """Return the geometric mean of ``ratios``."""
    return float(np.exp(np.log(ratios.astype(float)).mean()))


def keep(rows: Sequence[dict[str, Any]], key: Sequence[str], out: Path) -> pd.DataFrame:
    """Write ``rows`` into the file ``out``, replacing earlier rows of the same ``key``; return them as a table."""
    table = pd.DataFrame(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.exists():
        old = pd.read_csv(out).set_index(list(key))
        both = pd.concat([old[~old.index.isin(table.set_index(list(key)).index)].reset_index(), table])
    else:
        both = table
    both.to_csv(out, index=False)
    return table


def run_cases(
    cases: Sequence[Any], row_of: Callable[[Any, Options], dict[str, Any]], options: Options, ratio: str = "ratio"
) -> pd.DataFrame:
    """Run the selected cases, print and keep each row when it is done, then print the table and return it.

    The first two columns of a row are its key; the setting is kept with it.
    """
    rows: list[dict[str, Any]] = []
    for case in cases:
        if options.only in str(case):
            rows.append(row_of(case, options))
            keep([rows[-1] | {"setting": str(options)}], list(rows[-1])[:2], options.out)
            shown = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in rows[-1].items()}
            print("  ".join(f"{k} {v}" for k, v in shown.items()), flush=True)
    if not rows:
        raise SystemExit(f"no case contains {options.only!r}; the cases are {', '.join(map(str, cases))}")
    table = pd.DataFrame(rows)
    print(f"\n{markdown(table)}\n\n{options}")
    print(f"geometric mean {geometric_mean(table[ratio]):.3g}x, {extremes(table[ratio])}")
    return table


def extremes(ratios: pd.Series) -> str:
    """Return the smallest and the largest ratio, in words."""
    return f"from {ratios.min():.3g}x to {ratios.max():.3g}x"
