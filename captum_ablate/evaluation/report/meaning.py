"""What each number of a leaderboard means, in words."""

from __future__ import annotations

from collections.abc import Iterable

from captum_ablate.evaluation.claims import Headings

OVER_NETWORKS = {
    "mean_rank": "Mean of the ranks of a method's gap among all methods, over networks: 1 is the largest gap.",
    "best": "Comparisons whose data cannot tell the method from the best one, of all comparisons.",
}

MEANINGS = {
    "gap": "Deletion plus insertion, the headline: larger means that the attribution finds the units that the network "
    "needs. Random orders have 0 on average. It is the symmetric relevance gain of Bl\u00fccher et al. (2024), "
    "of units in the place of pixels. It rewards orders that sort by Shapley value, so agreement with these is "
    "partly by construction.",
    "z": "Gap over the root mean square of the gaps of the random orders, each run with its reverse.",
    "p": "Chance of such a z for a random order (one-sided, Student's t), corrected for the number of methods (Holm). "
    "There is none for a ranking that knew the evaluated samples, or where results chose the number of samples.",
    "p_within": "As p, for the order within each layer alone: knowing only which layer matters earns nothing.",
    "deletion": "Mean area between the intact metric and the curve with the most important units ablated first: larger "
    "is better. Under the zero reference the reverse of a good order scores well too, so deletion alone flatters.",
    "insertion": "Minus that area with the most important units ablated last: larger, nearer to 0, is better.",
    "share": "Part of the gap of the order by Shapley values, the yardstick, that a method earns.",
}
"""By column of the leaderboard; areas are in the unit of the metric."""

RANK = (
    "A range such as 1-3 where the data cannot tell: paired tests, Holm's correction over all pairs, 5 %. The best set "
    "is all methods whose rank may be 1."
)
RANK_UNTIL = "A range where confidence sequences, which hold for all methods together, overlap."
RANK_OVER_NETWORKS = (
    "A range where networks cannot tell: paired t tests over networks, Holm's correction, 5 %; nothing is told below 5 "
    "networks."
)


def meanings(columns: Iterable[str], headings: Headings, rank: str = RANK) -> dict[str, str]:
    """Return what each of the ``columns`` means, by its heading; others are left out."""
    known = {"rank": rank} | OVER_NETWORKS | MEANINGS
    named = {"rank": headings.rank}
    return {named.get(one, one.replace("_", " ")): known[one] for one in columns if one in known}
