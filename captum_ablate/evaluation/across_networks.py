"""One reference and one metric over several networks: mean ranks, mean gaps, and what the networks can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from captum_ablate.evaluation.comparison import Comparison
from captum_ablate.evaluation.pairs import Difference, Pairs
from captum_ablate.inputs.wording import counted, listed, visible
from captum_ablate.statistics.intervals import FEWEST_NETWORKS, Floats, Interval, over_networks, rank_intervals

Named = tuple[str, Comparison]
"""A network's name, and a comparison on one of its layers."""


@dataclass(frozen=True, eq=False)
class AcrossNetworks:
    """The methods that all comparisons of one reference and metric have, over networks.

    ``results`` has one row per comparison and method: network, layer, method, rank, gap, is_best. ``is_one_setting``
    tells whether layer, units and steps are the same everywhere, so that gaps compare: then methods are ordered by mean
    gap, else by mean rank. The layers of a network are averaged first, so that every network counts once.
    """

    reference: str
    metric: str
    results: pd.DataFrame
    is_one_setting: bool
    notes: list[str]

    @classmethod
    def of(cls, named: Sequence[Named]) -> AcrossNetworks:
        """Return what these comparisons say together; they share reference and metric.

        Raises:
            ValueError: if no method is in all of them.
        """
        methods = [name for name in named[0][1] if all(name in one.curves for _, one in named)]
        about = named[0][1].provenance
        if not methods:
            raise ValueError(
                f"no method is in all comparisons with {about.reference} reference and {about.metric}; there are "
                + "; ".join(f"{network}: {', '.join(one)}" for network, one in named)
            )
        settings = {(tuple(c.provenance.layers.items()), len(c[methods[0]].n_ablated)) for _, c in named}
        results = pd.concat([_results(network, one, methods) for network, one in named], ignore_index=True)
        notes = _notes(named, methods, len(settings))
        return cls(about.reference, about.metric, results, len(settings) == 1, notes)

    @property
    def name(self) -> str:
        """Reference and metric, in words."""
        return f"{visible(self.reference)} reference, {visible(self.metric.replace('_', ' '))}"

    @property
    def networks(self) -> list[str]:
        """Names of the networks, as they came."""
        return list(dict.fromkeys(self.results["network"]))

    @property
    def methods(self) -> list[str]:
        """Names of the methods, as they came."""
        return list(dict.fromkeys(self.results["method"]))

    def means(self, column: str) -> Floats:
        """Return the mean of ``column`` over the layers of each network, ``[methods, networks]``."""
        table = self.results.groupby(["method", "network"], sort=False)[column].mean().unstack()
        return table.loc[self.methods, self.networks].to_numpy(np.float64)

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """One row per method, best first: rank, method, mean_rank and gap with ends, best, comparisons.

        ``rank`` is a range where networks cannot tell: paired t tests over networks, Holm's correction, 5 %, and no
        telling below 5 networks. ``best`` counts the comparisons whose data cannot tell the method from the best one.
        """
        better, ranks, gaps = self._better, self.means("rank"), self.means("gap")
        first, last = 1 + better.sum(axis=0), len(better) - better.sum(axis=1)
        best = self.results.groupby("method")["is_best"].sum()
        rows, of_ranks = [], rank_intervals(ranks)
        for k, method in enumerate(self.methods):
            row: dict[str, Any] = {
                "rank": f"{first[k]}-{last[k]}" if first[k] < last[k] else str(first[k]),
                "method": method,
            }
            row |= _with_ends("mean_rank", ranks[k], of_ranks[k])
            row |= _with_ends("gap", gaps[k], over_networks(gaps[k])) if self.is_one_setting else {}
            rows.append({**row, "best": int(best[method]), "comparisons": len(self.results) // len(self.methods)})
        order = np.argsort(-self._pairs.gaps.mean(axis=1), kind="stable")
        return pd.DataFrame(rows).iloc[order].reset_index(drop=True)

    @property
    def best(self) -> list[str]:
        """Names of the methods whose rank may be the first."""
        return [row["method"] for row in self.leaderboard.to_dict("records") if row["rank"].split("-")[0] == "1"]

    def versus(self, method: str, other: str) -> Difference:
        """Return by how much ``method`` is ahead: in mean gap within one setting, else in places of the mean rank.

        Interval and p are of Student's t over networks, and NaN below 5 networks.

        Raises:
            KeyError: if a method is not in all comparisons.
        """
        for name in (method, other):
            if name not in self.methods:
                raise KeyError(f"{name!r} is not in all comparisons; there are {', '.join(map(repr, self.methods))}")
        found = self._pairs.difference(self.methods.index(method), self.methods.index(other))
        if len(self.networks) >= FEWEST_NETWORKS:
            return found
        return Difference(found.value, Interval(np.nan, np.nan), np.nan, np.nan)

    @cached_property
    def _pairs(self) -> Pairs:
        return Pairs(self.methods, self.means("gap") if self.is_one_setting else -self.means("rank"), None)

    @property
    def _better(self) -> np.ndarray:
        enough = len(self.networks) >= FEWEST_NETWORKS
        return self._pairs.better if enough else np.zeros((len(self.methods), len(self.methods)), dtype=bool)


def _with_ends(name: str, values: Floats, interval: Interval) -> dict[str, float]:
    return {name: float(values.mean()), f"{name}_low": interval.low, f"{name}_high": interval.high}


def _results(network: str, comparison: Comparison, methods: Sequence[str]) -> pd.DataFrame:
    pairs = Pairs.of([comparison[name] for name in methods])
    means, better = pairs.gaps.mean(axis=1), pairs.better
    return pd.DataFrame(
        {
            "network": network,
            "layer": comparison.provenance.layer,
            "method": methods,
            "rank": rankdata(-means.round(12)),  # equal orders may round apart
            "gap": means,
            "is_best": ~better.any(axis=0),
        }
    )


def _notes(named: Sequence[Named], methods: Sequence[str], settings: int) -> list[str]:
    """Return the sentences to read before the table, each only where it holds."""
    notes, networks = [], len(dict(named))
    if networks < FEWEST_NETWORKS:
        notes.append(f"{counted(networks, 'network')}: intervals and ranks over networks need {FEWEST_NETWORKS}")
    if settings > 1:
        notes.append(f"{settings} settings (layers, units, steps): ranks are averaged, gaps do not compare")
    some = dict.fromkeys(name for _, one in named for name in one if name not in methods)
    if some:
        notes.append(f"left out, not in all comparisons: {listed(list(some))}")
    in_sample = sum(one.provenance.in_sample for _, one in named)
    if in_sample:
        notes.append(f"in-sample: {in_sample} of {counted(len(named), 'comparison')} ranked on the evaluated data")
    overlap = sum(one.provenance.overlaps and not one.provenance.in_sample for _, one in named)
    if overlap:
        notes.append(
            f"overlap: {overlap} of {counted(len(named), 'comparison')} ranked on some of the evaluated samples"
        )
    notes += [
        f"{visible(a)} and {visible(b)} have the same results: is it one network, counted twice?"
        for k, (a, one) in enumerate(named)
        for b, other in named[k + 1 :]
        if a != b and _are_equal(one, other, methods)
    ]
    return notes


def _are_equal(one: Comparison, other: Comparison, methods: Sequence[str]) -> bool:
    if one.provenance.layers != other.provenance.layers or one.provenance.n != other.provenance.n:
        return False
    pairs = [(one[name].values, other[name].values) for name in methods]
    return all(a.shape == b.shape and bool((a == b).all()) for a, b in pairs)
