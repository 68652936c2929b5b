"""Attributes agree for exact shares; only the named sets look at group labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.papers.omahony import spurious
from benchmarks.papers.omahony.sets import USES_GROUPS, _sets
from captum_ablate.diagnostics import HeadTable


@pytest.mark.parametrize("share", [0.95, 0.5])
def test_the_attribute_agrees_for_exactly_its_share_of_each_class(share):
    labels = torch.tensor([0] * 200 + [1] * 100)
    attributes = spurious._attributes(labels, share, np.random.default_rng(0))
    for c in (0, 1):
        assert float((attributes == c)[labels == c].double().mean()) == pytest.approx(share)


def fake(n=400, seed=0):
    g = torch.Generator().manual_seed(seed)
    labels, attributes = torch.randint(0, 2, (n,), generator=g), torch.randint(0, 2, (n,), generator=g)
    logit = torch.randn(n, generator=g) + labels + attributes - 1
    table = HeadTable(torch.randn(n, 3, generator=g), torch.stack([-logit, logit], 1), labels)
    return table, spurious.Grouped(torch.zeros(n, 3, 2, 2), labels, attributes)


def test_only_the_named_sets_look_at_group_labels():
    """With other attributes, every other set stays as it was."""
    table, part = fake()
    changed = spurious.Grouped(part.images, part.labels, part.attributes.flip(0))
    before, after = _sets(table, part, 0), _sets(table, changed, 0)
    same = {name for name in before if all(torch.equal(a, b) for a, b in zip(before[name], after[name], strict=True))}
    assert set(before) - same == set(USES_GROUPS)


def test_sizes_and_companions_of_the_error_sets_match():
    table, part = fake(seed=1)
    sets = _sets(table, part, 0)
    wrong = table.logits.argmax(1) != table.target
    for mids, errors in zip(sets["mid-range errors"], sets["errors, as many as mid-range errors"], strict=True):
        for index in (mids, errors):
            assert len(index.unique()) == len(index)
        assert torch.equal(mids[~wrong[mids]].sort().values, errors[~wrong[errors]].sort().values)
        assert table.target[mids].bincount().tolist() == table.target[errors].bincount().tolist()
    assert len(sets["random"][0]) == len(sets["mid-range"][0])
    oracle = sets["group-balanced (oracle)"][0]
    pairs = 2 * table.target[oracle] + part.attributes[oracle]
    assert len(set(pairs.bincount().tolist())) == 1
