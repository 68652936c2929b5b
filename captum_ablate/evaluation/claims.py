"""What ranks and intervals are about: the methods, where they were ranked again, else the orders that were ablated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from captum_ablate.evaluation.provenance import Provenance
from captum_ablate.inputs.wording import listed

HELD = (
    "ranks and intervals are of the methods, ranked again on resamples of the ranking data; held fixed: the network, "
    "references, live units, bin edges, a probe's strength and the seeds of Monte-Carlo methods"
)
"""The sentence under a leaderboard whose methods were ranked again."""

HELD_ORDERS = (
    "ranks and intervals are over samples; held fixed: the network, these orders, references and which units are live"
)
"""The sentence under any other leaderboard."""

BANDS = "bands: 95 % over samples, for the orders that all ranking data gave"
"""The sentence over curves whose leaderboard is of methods."""

ORDER_ONLY = " *"
"""Follows the name of a method that was not ranked again, beside others that were."""


class Headings(NamedTuple):
    """Heading of the ranks, the ``kind`` of intervals of the gap, and what they are of, to follow it."""

    rank: str = "rank"
    kind: str = "interval"
    of_what: str = ""

    @property
    def interval(self) -> str:
        """What the intervals of the gap are called."""
        return f"95 % {self.kind}{self.of_what}"

    @property
    def intervals(self) -> str:
        """The same, in the plural."""
        return f"95 % {'intervals' if self.kind == 'interval' else 'confidence sequences'}{self.of_what}"

    @property
    def level(self) -> str:
        """The same, where it is clear that they are intervals."""
        return f"95 %{self.of_what}"

    @classmethod
    def of(cls, provenance: Provenance) -> Headings:
        """Return the headings of a leaderboard."""
        kind = "interval" if provenance.sampled is None else "sequence"
        if provenance.ranking_resamples:
            return cls(kind=kind)
        return cls("rank of these orders", kind, " for these rankings")


PLAIN = Headings()
"""The headings where ranks and intervals are of what stands in the rows."""


def marked(name: str, provenance: Provenance) -> str:
    """Return a method's name, marked if its intervals are of one order beside others of methods."""
    return name + ORDER_ONLY if name in provenance.order_only else name


def order_only_notes(provenance: Provenance) -> list[str]:
    """Return a sentence for each reason why methods were not ranked again, beside others that were."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in provenance.order_only.items():
        by_reason.setdefault(reason, []).append(name)
    return [_order_only(names, reason) for reason, names in by_reason.items()]


def _order_only(names: list[str], reason: str) -> str:
    own = "its order" if len(names) == 1 else "their orders"
    return f"*order only: {listed(names)}, with intervals of {own} alone ({reason})"


def plot_notes(notes: Sequence[str], provenance: Provenance) -> list[str]:
    """Return the sentences over curves: ``notes``, and what bands are of where the leaderboard is of methods."""
    return [*notes, BANDS] if provenance.ranking_resamples else list(notes)


def footnotes(provenance: Provenance, meaning: str) -> list[str]:
    """Return the sentences under a leaderboard: what gap means, and what ranks and intervals hold fixed."""
    return [meaning, HELD if provenance.ranking_resamples else HELD_ORDERS]
