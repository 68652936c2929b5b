"""Comparisons on several networks as one result: mean ranks, best sets counted, references side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from captum_ablate.evaluation import html, plots, text
from captum_ablate.evaluation.across_networks import AcrossNetworks, Named
from captum_ablate.evaluation.comparison import Comparison
from captum_ablate.evaluation.curve import GAP_MEANING
from captum_ablate.evaluation.pairs import Difference
from captum_ablate.evaluation.report import of_combined
from captum_ablate.inputs.wording import counted, listed, visible


def combine(comparisons: Mapping[str, Comparison | Sequence[Comparison]], *, across: str = "network") -> Combined:
    """Combine comparisons of the same methods on several networks.

    Args:
        comparisons: by the name of the network, one comparison or a list of them: of several layers, references or
            metrics. Layer, reference and metric are read from their provenance.
        across: "network": a network is what repeats, so that its layers are averaged first and it counts once.

    Raises:
        TypeError: if ``comparisons`` is no mapping of names to comparisons.
        ValueError: if there are none, or no method is in all comparisons with one reference and metric.

    >>> import torch
    >>> from captum_ablate import CumulativeAblationEvaluator, combine
    >>> data, scores = (torch.randn(20, 4), torch.arange(20) % 2), {"a": torch.rand(6), "b": torch.rand(6)}
    >>> def compared():
    ...     model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)).eval()
    ...     return CumulativeAblationEvaluator(model, "1").compare(scores, data)
    >>> combined = combine({"first": compared(), "second": compared()})
    >>> sorted(combined.leaderboard["method"])
    ['a', 'b']
    """
    if across != "network":
        raise ValueError(
            f"across must be 'network'; got {across!r}: layers or references of one network are not independent"
        )
    if not isinstance(comparisons, Mapping):
        raise TypeError(f"comparisons must be a mapping of network names; got {type(comparisons).__name__}")
    named: list[Named] = []
    for network, found in comparisons.items():
        several: list[Any] = list(found) if isinstance(found, (list, tuple)) else [found]
        if not isinstance(network, str) or not all(isinstance(one, Comparison) for one in several):
            raise TypeError(f"comparisons must map names to a Comparison or a list of them; got {network!r}: {found!r}")
        named += [(network, one) for one in several]
    if not named:
        raise ValueError("there are no comparisons to combine")
    blocks: dict[tuple[str, str], list[Named]] = {}
    for network, one in named:
        blocks.setdefault((one.provenance.reference, one.provenance.metric), []).append((network, one))
    return Combined(tuple(AcrossNetworks.of(block) for block in blocks.values()))


@dataclass(frozen=True, eq=False)
class Combined:
    """Comparisons on several networks: one block for each reference and metric, never averaged across them."""

    blocks: tuple[AcrossNetworks, ...]

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row per block and method, best first: reference, metric, rank, method, mean_rank, gap, best, comparisons.

        Ranks are among the methods of a block, 1 the largest gap, equal gaps sharing the mean of their ranks. ``gap``
        is there where layer, units and steps are the same everywhere. Intervals are Student's t over networks, from 5.
        """
        return self._joined([block.leaderboard for block in self.blocks])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per comparison and method: reference, metric, network, layer, method, rank, gap, is_best."""
        return self._joined([block.results for block in self.blocks])

    def versus(self, method: str, other: str, *, reference: str | None = None, metric: str | None = None) -> Difference:
        """Return by how much ``method`` is ahead of ``other``: in mean gap within one setting, else in mean rank.

        Raises:
            KeyError: if a method is not in all comparisons.
            ValueError: if ``reference`` and ``metric`` do not name one block.
        """
        asked = {"reference": reference, "metric": metric}
        found = [b for b in self.blocks if all(one in (None, getattr(b, of)) for of, one in asked.items())]
        if len(found) != 1:
            raise ValueError(
                f"reference={reference!r}, metric={metric!r} name {counted(len(found), 'block')}, and must name one; "
                f"there are {'; '.join(block.name for block in self.blocks)}"
            )
        return found[0].versus(method, other)

    def agreement(self) -> pd.DataFrame:
        """Return Kendall's tau-b between the mean ranks of each pair of blocks, over the methods of both."""
        names = [block.name for block in self.blocks]
        ranks = [pd.Series(block.means("rank").mean(axis=1), index=block.methods) for block in self.blocks]
        tau = np.ones((len(names), len(names)))
        for a, one in enumerate(ranks):
            for b, other in enumerate(ranks):
                both = [name for name in one.index if name in other.index]
                tau[a, b] = 1.0 if a == b else kendalltau(one[both], other[both]).statistic
        return pd.DataFrame(tau, index=names, columns=names)

    @property
    def verdict(self) -> str:
        """Who finds the units best, in a sentence: a winner is among the best under two references of one metric."""
        sentences = []
        for metric in dict.fromkeys(block.metric for block in self.blocks):
            blocks = [block for block in self.blocks if block.metric == metric]
            where = f" by {visible(metric.replace('_', ' '))}" if len({b.metric for b in self.blocks}) > 1 else ""
            sentences.append(_verdict(blocks, where))
        return " ".join(sentences)

    @property
    def notes(self) -> list[str]:
        """Sentences to read before the tables, each once, with the block where only some say it."""
        said: dict[str, list[str]] = {}
        for block in self.blocks:
            for note in block.notes:
                said.setdefault(note, []).append(block.name)
        everywhere = len(self.blocks)
        notes = [note if len(at) == everywhere else f"{'; '.join(at)}: {note}" for note, at in said.items()]
        return [*notes, *self._agreement_notes()]

    def _agreement_notes(self) -> list[str]:
        """Return a sentence for each pair of references of one metric: how far their mean ranks agree."""
        tau = self.agreement().to_numpy()
        return [
            f"{one.name} and {other.name} order methods with Kendall's tau {tau[a, b]:.2f}{_disagreement(one, other)}"
            for a, one in enumerate(self.blocks)
            for b, other in enumerate(self.blocks)
            if a < b and one.metric == other.metric and not np.isnan(tau[a, b])
        ]

    def to_latex(self) -> str:
        """Return a table for LaTeX for each block (needs the package booktabs), its best set in bold."""
        return "\n".join(text.as_latex(_shown(block), comments=[_heading(block)]) for block in self.blocks)

    def plot(self, ax: Any = None) -> Any:
        """Draw the mean rank of each method with its interval, a dot for each network; return the axes."""
        parts = {block.name: (block.methods, block.means("rank")) for block in self.blocks}
        title = _heading(self.blocks[0]) if len(parts) == 1 else f"{len(parts)} settings, never averaged"
        return plots.network_dots(self._order, parts, title=title, notes=self.notes, ax=ax)

    @property
    def _order(self) -> list[str]:
        """The methods of all blocks, the best of the first block first."""
        return list(dict.fromkeys(name for block in self.blocks for name in block.leaderboard["method"]))

    def report(self, file: str | Path) -> Path:
        """Write one HTML page that needs no other file; return its path.

        It has the verdict, the leaderboards over networks, mean ranks, the gaps of each network, how far references
        agree, and all data as CSV. If the picture cannot be drawn, the page names the error, with a warning.
        """
        return of_combined.report(self, {_heading(block): _shown(block) for block in self.blocks}, file)

    def __str__(self) -> str:
        tables = [f"{_heading(block)}\n{text.as_text(_shown(block))}" for block in self.blocks]
        return "\n".join([self.verdict, *self.notes, *tables, GAP_MEANING])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        tables = [html.table_html(_shown(block), _heading(block), {}, block.notes) for block in self.blocks]
        return "\n".join(tables)

    def _joined(self, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
        named = [
            frame.assign(reference=block.reference, metric=block.metric)
            for block, frame in zip(self.blocks, frames, strict=True)
        ]
        frame = pd.concat(named, ignore_index=True)
        return frame[["reference", "metric", *(name for name in frame if name not in ("reference", "metric"))]]


def _disagreement(one: AcrossNetworks, other: AcrossNetworks) -> str:
    """Return what to say of two references where no method of both is among the best under both: else nothing."""
    both = [name for name in one.methods if name in other.methods]
    if any(name in one.best and name in other.best for name in both):
        return ""
    return "; they disagree: no method is among the best under both"


def _heading(block: AcrossNetworks) -> str:
    comparisons = counted(len(block.results) // len(block.methods), "comparison")
    return f"{block.name}: {counted(len(block.networks), 'network')}, {comparisons}"


def _shown(block: AcrossNetworks) -> pd.DataFrame:
    """Return the columns that people read: how often a method is among the best stands as "7/10"."""
    board = block.leaderboard
    among = [f"{k}/{n}" for k, n in zip(board["best"], board["comparisons"], strict=True)]
    return board.drop(columns=["comparisons"]).assign(best=among)


def _verdict(blocks: Sequence[AcrossNetworks], where: str) -> str:
    references = list(dict.fromkeys(block.reference for block in blocks))
    if len(references) == 1:
        best = listed(blocks[0].best)
        said = f"Best{where}" if len(blocks[0].best) == 1 else f"Not told apart from the best{where}"
        return f"{said} under the {visible(references[0])} reference: {best}. A winner needs a second reference."
    wins = {name: sum(name in block.best for block in blocks) for block in blocks for name in block.methods}
    winners = [name for name, times in wins.items() if times >= 2]  # a block is a reference: metrics are equal here
    if not winners:
        return f"No method is among the best{where} under two references."
    if len(winners) > 1:
        return f"Networks cannot tell which of {listed(winners)} finds the units best{where}."
    under = listed([block.reference for block in blocks if winners[0] in block.best])
    return f"{visible(winners[0])} finds the units best{where}, under {under}."
