"""Several rankings on the same data, layer and reference: curves, leaderboard, and what survives on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.stats import kendalltau
from torch import Tensor

from captum_ablate.evaluation import html as report
from captum_ablate.evaluation import plots
from captum_ablate.evaluation.curve import DeficitCurve, Frozen, sampled_of, setting
from captum_ablate.statistics.confidence_sequence import Sampled
from captum_ablate.statistics.intervals import Interval, better_than

MEANING = "gap = deletion + insertion: larger means that the attribution finds the units that the network needs"


@dataclass(frozen=True, eq=False)
class RandomOrders:
    """Random orders of the units: mean curves ``[orders, steps+1]`` and areas ``[orders, n]``, in both directions."""

    score: Tensor
    ascending_score: Tensor | None
    areas: Tensor
    ascending_areas: Tensor | None

    @property
    def deletion(self) -> Tensor:
        """Mean D_i of each order, ``[orders]``."""
        return self.areas.mean(dim=1)

    @property
    def insertion(self) -> Tensor:
        """Minus the mean D_i of each reversed order, ``[orders]``; NaN without the reverse."""
        reverse = self.ascending_areas
        return torch.full_like(self.deletion, torch.nan) if reverse is None else -reverse.mean(dim=1)

    @property
    def gap(self) -> Tensor:
        """Deletion plus insertion of each order, ``[orders]``: 0 in expectation."""
        return self.deletion + self.insertion

    def to_frame(self, fraction: Tensor) -> pd.DataFrame:
        """Return one row per order, direction and step: order, direction, fraction, score."""
        directions = {"descending": self.score, "ascending": self.ascending_score}
        rows = [
            pd.DataFrame({"order": k, "direction": direction, "fraction": fraction.numpy(), "score": curve.numpy()})
            for direction, curves in directions.items()
            if curves is not None
            for k, curve in enumerate(curves)
        ]
        columns = ["order", "direction", "fraction", "score"]
        return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The deficit curve of each method, why others have none, and the random orders they are held against."""

    curves: Mapping[str, DeficitCurve]
    failed: Mapping[str, str]
    random: RandomOrders
    provenance: Mapping[str, Any]

    def __getitem__(self, name: str) -> DeficitCurve:
        if name in self.curves:
            return self.curves[name]
        if name in self.failed:
            raise KeyError(f"{name!r} is not applicable: {self.failed[name]}")
        raise KeyError(f"no method {name!r}; there are {', '.join(map(repr, self.curves))}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.curves)

    def __len__(self) -> int:
        return len(self.curves)

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row per method, best first: rank, method, gap, deletion, insertion, over_random, with intervals, and p.

        Ordered by gap (by deletion where the reverse order was not asked for). ``rank`` is a range such as "1-2" where
        the data cannot tell: paired t tests over images, Holm's correction over all pairs, 5 %; where images were
        drawn for precision, confidence sequences that overlap.
        """
        return self._board.copy()

    @cached_property
    def _board(self) -> pd.DataFrame:
        headline = self._headline()
        better = better_than(headline) if self.sampled is None else self._apart()
        first, last = 1 + better.sum(axis=0), len(headline) - better.sum(axis=1)
        rows = [
            {
                "rank": str(lo) if lo == hi else f"{lo}-{hi}",
                "method": name,
                **_with_ends("gap", curve.gap, curve.gap_interval),
                **_with_ends("deletion", curve.deletion, curve.deletion_interval),
                **_with_ends("insertion", curve.insertion, curve.insertion_interval),
                **_with_ends("over_random", curve.over_random, curve.over_random_interval),
                "p": curve.p,
                "ties": curve.ties,
            }
            for (name, curve), lo, hi in zip(self.curves.items(), first, last, strict=True)
        ]
        best_first = np.argsort(-headline.mean(axis=1), kind="stable")
        return pd.DataFrame(rows).iloc[best_first].reset_index(drop=True)

    def _headline(self) -> np.ndarray:
        """Return what ranks the methods, per sample: ``[methods, n]``."""
        ascending = self.provenance["ascending"]
        return np.stack([(c.gap_areas if ascending else c.areas).numpy() for c in self.curves.values()])

    @property
    def sampled(self) -> Sampled | None:
        """How images were drawn, where a precision was asked for."""
        return sampled_of(self.provenance)

    def _apart(self) -> np.ndarray:
        """Return ``[methods, methods]``: whether the row's confidence sequence lies above the column's."""
        ascending = self.provenance["ascending"]
        ends = [c.gap_interval if ascending else c.deletion_interval for c in self.curves.values()]
        low, high = np.array(ends).T
        return low[:, None] > high[None, :]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per method, direction and step: method, direction, n_ablated, fraction, score, low, high."""
        return pd.concat([curve.to_frame() for curve in self.curves.values()], ignore_index=True)

    def rank_correlation(self) -> pd.DataFrame:
        """Return Kendall's tau-b between the scores of each pair of methods, a symmetric frame."""
        names = list(self.curves)
        scores = [self.curves[name].scores.numpy() for name in names]
        tau = [[1.0 if a is b else float(kendalltau(a, b).statistic) for b in scores] for a in scores]
        return pd.DataFrame(tau, index=names, columns=names)

    def plot(self, ax: Any = None, *, legend: bool = True) -> Any:
        """Draw all curves with bands, the reverse orders dashed and random orders in grey; return the axes."""
        order = {name: k for k, name in enumerate(self.leaderboard["method"])}
        frame = self.to_frame().sort_values("method", key=lambda column: column.map(order), kind="stable")
        return plots.deficit_curves(
            frame,
            self._random_frame(),
            title=self.setting,
            metric=str(self.provenance["metric"]),
            ax=ax,
            legend=legend,
        )

    @property
    def setting(self) -> str:
        """Layer, reference, metric and data, in a line."""
        return setting(self.provenance)

    def __str__(self) -> str:
        lines = [self.setting, _as_text(self._shown(), "interval" if self.sampled is None else "sequence")]
        lines += [f"not applicable: {name} ({reason})" for name, reason in self.failed.items()]
        return "\n".join([*lines, MEANING] if self.provenance["ascending"] else lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return report.table_html(self._shown(), self.setting, dict(self.failed))

    def report(self, file: str | Path) -> Path:
        """Write one self-contained HTML page with the leaderboard and the curves; return its path."""
        curves, board = (Figure(figsize=size, layout="constrained") for size in ((9.5, 5.2), (7.0, 4.5)))
        self.plot(curves.subplots())
        intervals = "95 % intervals" if self.sampled is None else "95 % confidence sequences"
        plots.leaderboard_bars(self.leaderboard, board.subplots(), intervals=intervals)
        path = Path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        page = report.render("Deficit curves", self.setting, self._shown(), dict(self.failed), [curves, board])
        path.write_text(page, encoding="utf-8")
        return path

    def save(self, folder: str | Path) -> Path:
        """Write ``comparison.json`` and ``comparison.npz`` into ``folder`` (made if absent); return the folder."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, np.ndarray] = {}
        about = {
            "provenance": dict(self.provenance),
            "failed": dict(self.failed),
            "random": _put(arrays, "random", vars(self.random)),
            "curves": [
                _put(arrays, f"curve{k}", {**vars(curve), "provenance": None})
                for k, curve in enumerate(self.curves.values())
            ],
        }
        (path / "comparison.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        np.savez_compressed(path / "comparison.npz", **arrays)  # type: ignore[arg-type]  # arrays by name
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """Return what ``save`` wrote into ``folder``, equal to the bit."""
        path = Path(folder)
        about = json.loads((path / "comparison.json").read_text(encoding="utf-8"))
        with np.load(path / "comparison.npz") as file:
            arrays = {name: file[name] for name in file.files}
        provenance = Frozen(about["provenance"])
        curves = {}
        for k, simple in enumerate(about["curves"]):
            fields = _take(arrays, f"curve{k}", simple)
            fields["over_random_interval"] = Interval(*fields["over_random_interval"])
            curves[fields["name"]] = DeficitCurve(**{**fields, "provenance": provenance})
        orders = RandomOrders(**_take(arrays, "random", about["random"]))
        return cls(Frozen(curves), Frozen(about["failed"]), orders, provenance)

    def _random_frame(self) -> pd.DataFrame | None:
        if not len(self.random.score):
            return None
        return self.random.to_frame(next(iter(self.curves.values())).fraction)

    def _shown(self) -> pd.DataFrame:
        """Return the columns of the leaderboard that people read."""
        columns = ["rank", "method"]
        columns += ["gap", "gap_low", "gap_high"] if self.provenance["ascending"] else []
        columns += ["deletion"] if self.sampled is None else ["deletion", "deletion_low", "deletion_high"]
        columns += ["insertion"] if self.provenance["ascending"] else []
        if self.provenance["n_random"]:
            columns += ["over_random", "over_random_low", "over_random_high"]
            columns += (
                ["p"] if self.sampled is None else []
            )  # its orders are no sample once images were drawn by results
        return self.leaderboard[columns]


def _with_ends(name: str, value: float, interval: Interval) -> dict[str, float]:
    return {name: value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _as_text(shown: pd.DataFrame, kind: str) -> str:
    """Return the table as aligned text: words to the left, numbers to the right, intervals behind their value."""
    columns: dict[str, list[str]] = {}
    for name in shown.columns:
        if name.endswith(("_low", "_high")):
            continue
        texts = [value if isinstance(value, str) else f"{value:.3f}" for value in shown[name]]
        heading = name.replace("_", " ")
        if f"{name}_low" in shown:
            ends = zip(texts, shown[f"{name}_low"], shown[f"{name}_high"], strict=True)
            texts = [f"{text} [{low:.3f}, {high:.3f}]" for text, low, high in ends]
            heading += f" [95 % {kind}]" if name == "gap" else " [95 %]"
        width = max(map(len, [heading, *texts]))
        is_word = name in ("rank", "method")
        columns[name] = [t.ljust(width) if is_word else t.rjust(width) for t in (heading, *texts)]
    return "\n".join("  ".join(row).rstrip() for row in zip(*columns.values(), strict=True))


def _put(arrays: dict[str, np.ndarray], prefix: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Put the tensors of ``fields`` into ``arrays``; return the rest, for JSON."""
    simple = {}
    for name, value in fields.items():
        if isinstance(value, Tensor):
            arrays[f"{prefix}.{name}"] = value.numpy()
        elif name != "_board":
            simple[name] = value
    return simple


def _take(arrays: Mapping[str, np.ndarray], prefix: str, simple: Mapping[str, Any]) -> dict[str, Any]:
    tensors = {
        name.removeprefix(f"{prefix}."): torch.from_numpy(array)
        for name, array in arrays.items()
        if name.startswith(f"{prefix}.")
    }
    return {**simple, **tensors}
