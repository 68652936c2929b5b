"""Labelled values in any split, and what is counted of them by plain comparison."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import strategies as st


@st.composite
def labelled_values(draw):
    n, units = draw(st.integers(2, 40)), draw(st.integers(1, 6))
    values = torch.randn(n, units, generator=torch.Generator().manual_seed(draw(st.integers(0, 2**31))))
    labels = draw(st.lists(st.sampled_from([3, 17, 250, -1]), min_size=n, max_size=n))
    cuts = sorted(draw(st.lists(st.integers(1, n - 1), max_size=3, unique=True)))
    return values.double(), torch.tensor(labels), cuts


def parts_of(values, target, cuts):
    bounds = [0, *cuts, len(target)]
    return [(values[a:b], target[a:b]) for a, b in pairwise(bounds)]


def add_up(statistics):
    total, *rest = statistics
    for statistic in rest:
        total = total + statistic
    return total


def counts_by_comparison(values, target, edges):
    """How many values of each class and unit lie above k edges: by comparing each with each, in float64."""
    bins = (values.double()[..., None] > edges).sum(-1)  # [n, units]
    classes = target.unique()
    return torch.stack(
        [torch.stack([(bins[target == c] == k).sum(0) for k in range(edges.shape[-1] + 1)], -1) for c in classes]
    )
