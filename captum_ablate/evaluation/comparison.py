"""Several rankings on the same data, layer and reference: their curves, and the leaderboard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.stats import kendalltau
from torch import Tensor

from captum_ablate.ablation import Measured, Plan
from captum_ablate.evaluation import html, plots, storage, text
from captum_ablate.evaluation.across_rankings import difference
from captum_ablate.evaluation.areas import curves_of
from captum_ablate.evaluation.claims import Headings, footnotes, marked, order_only_notes, plot_notes
from captum_ablate.evaluation.curve import GAP_MEANING, DeficitCurve
from captum_ablate.evaluation.notes import gap_notes, order_notes, reference_notes, tie_notes
from captum_ablate.evaluation.pairs import Difference, Pairs
from captum_ablate.evaluation.provenance import Frozen, Provenance
from captum_ablate.evaluation.random_orders import RandomOrders
from captum_ablate.evaluation.ranked_again import NEVER, RankedAgain
from captum_ablate.evaluation.report import of_comparison
from captum_ablate.evaluation.rows import row_of, with_yardstick, within_columns
from captum_ablate.evaluation.within_layers import WithinLayers, has_null_within, within_layers
from captum_ablate.evaluation.yardstick import NAME, ShapleyRanking, as_ranked_again, share_notes
from captum_ablate.inputs.values import whole_number
from captum_ablate.inputs.wording import isolated, visible
from captum_ablate.statistics.null import holm


@dataclass(frozen=True, eq=False)
class Comparison:
    """The deficit curve of each method, why others have none, and the random orders they are held against.

    ``curves`` by method; ``failed``, the reason by method that is not applicable; ``random``, the random orders;
    ``yardstick``, the order by Shapley values that shares are of, if one was asked for;
    ``within``, of several layers, by method, what its order within each layer says (``evaluation.within_layers``).

    >>> import torch
    >>> from captum_ablate import CumulativeAblationEvaluator
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)).eval()
    >>> data = torch.randn(20, 4), torch.arange(20) % 2
    >>> comparison = CumulativeAblationEvaluator(model, "1").compare({"a": torch.rand(6), "b": torch.rand(6)}, data)
    >>> sorted(comparison), comparison["a"].order.shape
    (['a', 'b'], torch.Size([6]))
    """

    curves: Mapping[str, DeficitCurve]
    failed: Mapping[str, str]
    random: RandomOrders
    provenance: Provenance
    yardstick: DeficitCurve | None = None
    within: Mapping[str, WithinLayers] = field(default_factory=lambda: Frozen({}))

    @classmethod
    def of(
        cls,
        scores: Mapping[str, Tensor],
        failed: Mapping[str, str],
        plan: Plan,
        measured: Measured,
        provenance: Provenance,
        again: Mapping[str, RankedAgain],
        shapley: ShapleyRanking | None = None,
    ) -> Comparison:
        """Return the comparison of the methods with ``scores``, whose orders come first in ``plan``.

        Every order of the plan is followed by its reverse. The orders after those of the methods are random; then come
        those of the yardstick and its resamples, and those within layers. ``again`` holds what the resampled rankings
        of a method say.
        """
        curves, methods = curves_of(plan, measured), len(scores)
        descending, ascending = curves[::2], curves[1::2]
        n_ablated = torch.tensor([0, *plan.chains[0].counts])
        fraction = n_ablated.to(torch.float64) / len(plan.chains[0].order)
        ends = methods + provenance.n_random
        random = RandomOrders.of(descending[methods:ends], ascending[methods:ends], fraction, len(measured.intact))

        def curve(name: str, values: Tensor, k: int, again: RankedAgain) -> DeficitCurve:
            return DeficitCurve.of(
                name=name,
                scores=values,
                order=plan.chains[2 * k].order,
                n_ablated=n_ablated,
                values=descending[k],
                ascending_values=ascending[k],
                target=measured.target,
                null=random.gap,
                random_quantiles=random.quantiles,
                provenance=provenance,
                again=again,
            )

        alone = [curve(name, values, k, again.get(name, NEVER)) for k, (name, values) in enumerate(scores.items())]
        yardstick = None
        if shapley is not None:
            first, ends = ends, ends + 1 + len(shapley.resampled)
            resampled = as_ranked_again(descending[first + 1 : ends], ascending[first + 1 : ends], fraction)
            yardstick = curve(NAME, shapley.scores, first, resampled)
        within: Mapping[str, WithinLayers] = {}
        if has_null_within(provenance):
            within = within_layers([*scores], descending[ends:], ascending[ends:], fraction, provenance)
        p = holm(np.array([curve.p_raw for curve in alone])).tolist()
        found = {curve.name: replace(curve, p=one) for curve, one in zip(alone, p, strict=True)}
        return cls(Frozen(found), Frozen(failed), random, provenance, yardstick, Frozen(within))

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
        """One row per method, best first: rank, method, gap, deletion and insertion with intervals, z and p.

        Ordered by gap. ``rank`` is a range such as "1-2" where the data cannot tell: paired tests over samples,
        Holm's correction over all pairs, 5 %; where samples were drawn ``until`` a precision, confidence sequences
        that overlap. Ranks and intervals are of the methods where ``resamples``, the rankings on resampled data, are
        not 0, else of the one order. ``seconds`` is how long ranking took (``Provenance.ranking_seconds``).
        Of several layers, ``gap_within``, ``z_within`` and ``p_within`` are of the order within each layer.
        With a yardstick, ``share`` is the part of its gap that a method earns, and its own row is the last, not ranked
        and not corrected for.
        """
        return with_yardstick(self._board, self.yardstick)

    @cached_property
    def _board(self) -> pd.DataFrame:
        better = self._pairs.better
        first, last = 1 + better.sum(axis=0), len(better) - better.sum(axis=1)
        rows = [
            row_of(str(lo) if lo == hi else f"{lo}-{hi}", curve, self.yardstick)
            | within_columns(self.within.get(curve.name))
            for curve, lo, hi in zip(self.curves.values(), first, last, strict=True)
        ]
        best_first = np.argsort(-self._pairs.gaps.mean(axis=1), kind="stable")
        return pd.DataFrame(rows).iloc[best_first].reset_index(drop=True)

    @cached_property
    def _pairs(self) -> Pairs:
        return Pairs.of(list(self.curves.values()))

    def versus(self, method: str, other: str, *, of: Comparison | None = None) -> Difference:
        """Return by how much the gap of ``method`` exceeds that of ``other``, on the same samples.

        ``other`` may be ``of`` another comparison, ranked on other data and evaluated on the same samples: the noise of
        both rankings counts, if both were ranked again on resamples. Its p is not corrected. Without ``of``, ``p`` is
        corrected for all pairs of the comparison, and ``p_raw`` is that of this pair alone.

        Raises:
            KeyError: if one of them is not in the comparison, or not applicable.
            ValueError: if the other comparison has another setting, or other samples.
        """
        if of is not None:
            return difference(self[method], of[other])
        names = list(self.curves)
        a, b = (names.index(self[name].name) for name in (method, other))
        return self._pairs.difference(a, b)

    def pairwise(self) -> pd.DataFrame:
        """Return one row per pair of methods, best methods first: method, other, difference with ends, p, p_raw."""
        return self._pairs.to_frame()

    @property
    def verdict(self) -> str:
        """Who finds the units best, and whether chance does as well, in one to three sentences."""
        return text.verdict(self._board, self._pairs, self.provenance, at_chance=bool(self._any.chance_notes))

    def to_latex(self) -> str:
        """Return the printed table for LaTeX (needs the package booktabs), the best set in bold.

        What is printed around the table stands above it, in comments.
        """
        around = [self.setting, *self.notes, *footnotes(self.provenance, GAP_MEANING)]
        return text.as_latex(self._shown(), Headings.of(self.provenance), around)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per method, direction and step: method, direction, n_ablated, fraction, score, low, high."""
        return pd.concat([curve.to_frame() for curve in self.curves.values()], ignore_index=True)

    def rank_correlation(self) -> pd.DataFrame:
        """Return Kendall's tau-b between the scores of each pair of methods, a symmetric frame."""
        names = list(self.curves)
        scores = [self.curves[name].scores.numpy() for name in names]
        tau = np.ones((len(names), len(names)))
        for a, b in combinations(range(len(names)), 2):
            tau[a, b] = tau[b, a] = kendalltau(scores[a], scores[b]).statistic
        return pd.DataFrame(tau, index=names, columns=names)

    def plot(self, ax: Any = None, *, top: int | None = 5, legend: bool = True) -> Any:
        """Draw the curves with bands, their reverses dashed and the band of random orders; return the axes.

        The ``top`` best have colours, the others are grey and counted; None colours all. Equal curves count once. The
        yardstick is dotted, in black.
        """
        return plots.deficit_curves(
            self._best_first(),
            self._any.random_band,
            orders=len(self.random),
            yardstick=None if self.yardstick is None else self.yardstick.to_frame(),
            top=None if top is None else whole_number(top, "top", 1),
            title=self.setting,
            notes=plot_notes(self.notes, self.provenance),
            metric=self.provenance.metric,
            ax=ax,
            legend=legend,
        )

    @property
    def _any(self) -> DeficitCurve:
        return next(iter(self.curves.values()))

    def _best_first(self) -> pd.DataFrame:
        return pd.concat([self.curves[name].to_frame() for name in self._board["method"]], ignore_index=True)

    @property
    def setting(self) -> str:
        """Layer, reference, metric and data, in a line."""
        return self.provenance.setting

    @property
    def notes(self) -> list[str]:
        """Sentences to read before the numbers: chance accuracy, few steps, ties, equal orders, gaps of 0."""
        ties = {name: curve.ties for name, curve in self.curves.items()}
        orders = {name: curve.order for name, curve in self.curves.items()}
        own = [*order_only_notes(self.provenance), *tie_notes(ties, len(self._any.order)), *order_notes(orders, ties)]
        gaps = gap_notes([curve.gap for curve in self.curves.values()])
        other = reference_notes(self.provenance)
        return [*self._any.setting_notes, *own, *other, *gaps, *share_notes(self.yardstick)]

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self, width: int | None = None) -> str:
        """Return what ``print`` shows; for a terminal of ``width`` columns, without the last columns of the table."""
        lines = [self.setting, *self.notes, text.as_text(self._shown(), Headings.of(self.provenance), width)]
        lines += [
            f"not applicable: {isolated(visible(name))} ({' '.join(reason.split())})"
            for name, reason in self.failed.items()
        ]
        return "\n".join([*lines, *footnotes(self.provenance, GAP_MEANING)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        below = footnotes(self.provenance, GAP_MEANING)
        shown = (self._shown(), self.setting, dict(self.failed), self.notes)
        return html.table_html(*shown, headings=Headings.of(self.provenance), footnotes=below)

    def report(self, file: str | Path, *, command: str | None = None) -> Path:
        """Write one HTML page that needs no other file; return its path.

        It has the verdict, the leaderboard and what its numbers mean, gaps, curves, differences, classes, correlations,
        ties, settings, cost, provenance, how to repeat (by ``command``, where a command made the result) and to cite,
        and all data as CSV. If a picture cannot be drawn, the page names the error in its place, with a warning.
        """
        return of_comparison.report(self, self._shown(), file, command)

    def picture(self, top: int | None = 5) -> Figure:
        """Return a figure of the size that the curves of ``plot`` need, without pyplot."""
        figure = Figure(figsize=plots.curves_size(self._best_first(), top), layout="constrained")
        self.plot(figure.subplots(), top=top)
        return figure

    def save(self, folder: str | Path) -> Path:
        """Write ``comparison.json`` and ``comparison.npz`` into ``folder`` (made if absent); return the folder."""
        tree = {
            "provenance": self.provenance.to_dict(),
            "failed": dict(self.failed),
            "random": vars(self.random),
            "within": {name: vars(one) for name, one in self.within.items()},
            "curves": [_own_fields(curve) for curve in self.curves.values()],
            "yardstick": None if self.yardstick is None else _own_fields(self.yardstick),
        }
        return storage.save(folder, "comparison", tree)

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """Return what ``save`` wrote into ``folder``, equal to the bit; its JSON file may be named instead.

        Raises:
            FileNotFoundError: if the folder holds no saved comparison.
            ValueError: if it is damaged, or written by a newer version.
        """
        tree = storage.load(folder, "comparison")
        provenance = Provenance.of_dict(tree["provenance"])
        random = RandomOrders(**tree["random"])
        shared: dict[str, Any] = {"provenance": provenance, "random_quantiles": random.quantiles}
        curves = {fields["name"]: DeficitCurve(**fields, **shared) for fields in tree["curves"]}
        found = tree.get("yardstick")  # results saved before there was one have none
        yardstick = None if found is None else DeficitCurve(**found, **shared)
        within = {name: WithinLayers(**fields) for name, fields in tree.get("within", {}).items()}
        return cls(Frozen(curves), Frozen(tree["failed"]), random, provenance, yardstick, Frozen(within))

    def _shown(self) -> pd.DataFrame:
        """Return the columns of the leaderboard that people read."""
        columns = ["rank", "method", "gap", "gap_low", "gap_high"]
        columns += ["z", "p"] if self.provenance.n_random else []
        columns += ["p_within"] if self.within else []
        columns += ["deletion"] if self.provenance.sampled is None else ["deletion", "deletion_low", "deletion_high"]
        columns += ["insertion"] if self.yardstick is None else ["insertion", "share", "share_low", "share_high"]
        shown = self.leaderboard[columns]
        return shown.assign(method=[marked(name, self.provenance) for name in shown["method"]])


def _own_fields(curve: DeficitCurve) -> dict[str, Any]:
    shared = ("provenance", "random_quantiles")  # both stand once in a comparison
    return {name: value for name, value in vars(curve).items() if name not in shared}
