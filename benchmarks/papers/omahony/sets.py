"""Sets of held-out samples for retraining a last layer, and the worst-group accuracy of each."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.papers.omahony.spurious import Grouped, SpuriousSplit
from captum_ablate.diagnostics.midrange import Curation, curate_midrange
from captum_ablate.diagnostics.retraining import HeadTable, head_table, retrain_last_layer
from captum_ablate.diagnostics.worst_group import worst_group_accuracy

DRAWS = 5
"""Draws of each set that has a random part."""

USES_GROUPS = ("mid-range minority", "group-balanced (oracle)")
"""The sets whose choice uses group labels."""


def compare_sets(network: nn.Module, split: SpuriousSplit, seed: int) -> pd.DataFrame:
    """Return one row per set: its size ``n``, its share of ``minority`` samples, and three accuracies.

    These are ``worst`` (of any group), ``mean`` and ``train_weighted``; NaN if a set has fewer than two samples of a
    class. "ERM" is the network's own last layer.
    """
    held_out, evaluate = (_table(network, part) for part in (split.held_out, split.evaluate))
    rows = [("ERM", 0, float("nan"), *_judged(evaluate.logits, split))]
    for name, draws in _sets(held_out, split.held_out, seed).items():
        minority = torch.cat([split.held_out.minority[index] for index in draws]).double().mean()
        results = [_retrained(held_out, index, evaluate, split) for index in draws]
        means = torch.tensor(results, dtype=torch.float64).mean(dim=0).tolist()
        rows.append((name, round(sum(map(len, draws)) / len(draws)), float(minority), *means))
    return pd.DataFrame(rows, columns=["set", "n", "minority", "worst", "mean", "train_weighted"])


def _sets(table: HeadTable, part: Grouped, seed: int) -> dict[str, list[Tensor]]:
    """Return the draws of each set, as index arrays into the held-out part."""
    logits, target = table.logits, table.target
    generator = torch.Generator().manual_seed(seed)
    everything = torch.arange(len(target))
    wrong = logits.argmax(dim=1) != target
    mids = curate_midrange(logits, target).indices
    of_errors = [curate_midrange(logits, target, minority="error", seed=draw) for draw in range(DRAWS)]
    pairs = [(part.labels == y) & (part.attributes == s) for y in (0, 1) for s in (0, 1)]
    rarest = min(int(pair.sum()) for pair in pairs)

    def some(pool: Tensor, n: int) -> Tensor:
        return pool[torch.randperm(len(pool), generator=generator)[:n]]

    def errors(like: Curation) -> Tensor:
        """Return as many errors of each class as ``like`` chose, with the same companions."""
        members = [
            some((wrong & (target == c)).nonzero().flatten(), int((target[like.chosen] == c).sum())) for c in (0, 1)
        ]
        return torch.cat([*members, like.companions])

    def all_errors() -> Tensor:
        """Return every error, and as many correctly classified samples of its class."""
        own = [(target == c, int((wrong & (target == c)).sum())) for c in (0, 1)]
        right = [some((~wrong & is_own).nonzero().flatten(), n) for is_own, n in own]
        return torch.cat([wrong.nonzero().flatten(), *right])

    return {
        "all held-out": [everything],
        "random": [some(everything, len(mids)) for _ in range(DRAWS)],
        "top-logit": [torch.cat([*_highest(logits, len(mids) // 2)]).unique()],
        "mid-range": [mids],
        "random, as many as mid-range errors": [some(everything, len(of_errors[0])) for _ in range(DRAWS)],
        "errors": [all_errors() for _ in range(DRAWS)],
        "errors, as many as mid-range errors": [errors(like) for like in of_errors],
        "mid-range errors": [one.indices for one in of_errors],
        "mid-range minority": [
            curate_midrange(logits, target, minority="group", groups=part.attributes, seed=draw).indices
            for draw in range(DRAWS)
        ],
        "group-balanced (oracle)": [
            torch.cat([some(pair.nonzero().flatten(), rarest) for pair in pairs]) for _ in range(DRAWS)
        ],
    }


def _highest(logits: Tensor, n: int) -> Iterator[Tensor]:
    return iter(logits.topk(min(n, len(logits)), dim=0).indices.T)


def _retrained(held_out: HeadTable, index: Tensor, evaluate: HeadTable, split: SpuriousSplit) -> tuple[float, ...]:
    target = held_out.target[index]
    if min(int((target == c).sum()) for c in (0, 1)) < 2:
        return (float("nan"),) * 3
    layer = retrain_last_layer(held_out.features[index], target)
    with torch.no_grad():
        return _judged(layer(evaluate.features), split)


def _judged(logits: Tensor, split: SpuriousSplit) -> tuple[float, ...]:
    """Return the worst-group, mean and train-weighted accuracy on the evaluation part."""
    part, train = split.evaluate, split.train
    result = worst_group_accuracy(logits, part.labels, part.attributes, train=(train.labels, train.attributes))
    return result.value, result.mean, result.train_weighted


def _table(network: nn.Module, part: Grouped) -> HeadTable:
    return head_table(network, "classifier", (part.images, part.labels))
