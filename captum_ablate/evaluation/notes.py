"""Sentences to read before the numbers, each only where it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from captum_ablate.evaluation.provenance import Provenance
from captum_ablate.inputs.targets import are_classes
from captum_ablate.inputs.wording import counted, listed, visible

FEW_STEPS = 5
"""Fewer steps than this make coarse areas, unless they are one unit each."""


def chance_notes(intact: Tensor, target: Tensor, metric: str) -> list[str]:
    """Return a sentence where the intact network is no better than chance, by accuracy: else none.

    Chance is the share of the most frequent class among the evaluated samples: what always naming this class scores.
    Samples of one class alone have no chance to compare with.
    """
    if metric != "accuracy" or not are_classes(target) or not bool(((intact == 0) | (intact == 1)).all()):
        return []
    counts, accuracy = target.unique(return_counts=True)[1], float(intact.mean())
    chance = float(counts.max()) / len(target)
    if len(counts) < 2 or accuracy > chance:
        return []
    return [
        f"at chance: the intact network's accuracy {accuracy:.3f} is not above {chance:.3f}, the share of the most "
        "frequent class; what its units do for accuracy cannot be told"
    ]


def step_notes(n_ablated: Tensor) -> list[str]:
    """Return a sentence where a curve ``[steps+1]`` has fewer than 5 steps and skips units: else none."""
    steps, units = len(n_ablated) - 1, int(n_ablated[-1])
    if steps >= min(FEW_STEPS, units):
        return []
    return [f"{counted(steps, 'step')} only: with fewer than {FEW_STEPS}, areas and gaps are coarse"]


def layer_notes(provenance: Provenance) -> list[str]:
    """Return a sentence where later layers may hold dead units, which nobody looked for: else none."""
    if len(provenance.layers) < 2 or not provenance.live_units_only:
        return []
    return [
        "dead units: only the layer that runs first was looked at for them; later layers keep theirs, since an "
        "ablation before them can wake them"
    ]


def overlap_notes(provenance: Provenance) -> list[str]:
    """Return a sentence where evaluated samples were ranked on too, or nobody can tell: else none.

    Data that are in-sample altogether are said in the setting.
    """
    overlap, n = provenance.overlap, provenance.n
    if provenance.in_sample or all(name in provenance.given for name in provenance.methods):
        return []
    if overlap is None:
        return ["overlap unknown: it cannot be told whether evaluated samples were ranked on too"]
    if not overlap:
        return []
    end = "; no p against random orders holds" if provenance.overlaps else ""
    verb = "was" if overlap == 1 else "were"
    return [f"overlap: {overlap:,} of {counted(n, 'evaluated sample')} {verb} ranked on too{end}"]


def reference_notes(provenance: Provenance) -> list[str]:
    """Return a sentence for each reference that methods ablate by, and the evaluator does not."""
    by_reference: dict[str, list[str]] = {}
    for name, reference in provenance.own_references.items():
        by_reference.setdefault(reference, []).append(name)
    return [
        f"another reference: {listed(names)} {'ranks' if len(names) == 1 else 'rank'} by what units do under the "
        f"{visible(reference)} reference, not under {visible(provenance.reference)}"
        for reference, names in by_reference.items()
    ]


def tie_notes(ties: Mapping[str, int], units: int) -> list[str]:
    """Return a sentence that names the methods which give every unit the same score, from ``ties`` by method."""
    flat = _flat(ties, units)
    if not flat:
        return []
    orders = "its order is" if len(flat) == 1 else "their orders are"
    return [f"all ties: {listed(flat)} {'gives' if len(flat) == 1 else 'give'} all units one score; {orders} random"]


def order_notes(orders: Mapping[str, Tensor], ties: Mapping[str, int]) -> list[str]:
    """Return a sentence for each group of methods with the same order ``[units]``; all-tied ones are no group."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, order in orders.items():
        if name not in _flat(ties, len(order)):
            groups.setdefault(tuple(order.tolist()), []).append(name)
    return [f"same order: {listed(names)}; one curve for all of them" for names in groups.values() if len(names) > 1]


def gap_notes(gaps: Sequence[float]) -> list[str]:
    """Return a sentence where all of several gaps are 0: else none."""
    if any(abs(gap) > 1e-12 for gap in gaps):
        return []
    one = len(gaps) == 1
    return [f"{'the gap is' if one else 'all gaps are'} 0: the metric does not tell an order from its reverse"]


def _flat(ties: Mapping[str, int], units: int) -> list[str]:
    return [name for name, tied in ties.items() if units > 1 and tied == units - 1]
