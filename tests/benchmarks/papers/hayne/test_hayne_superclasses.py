"""Superclasses are disjoint, and joined logits sum probabilities."""

from __future__ import annotations

import torch

from benchmarks.papers.hayne.superclasses import RANGES, joined_logits, members, superclass_of


def test_superclasses_are_disjoint_and_hold_well_known_classes():
    sizes = {name: len(indices) for name, indices in members().items()}
    assert sizes == {"dog": 118, "bird": 59, "reptile": 36, "insect": 27, "food": 44, "artifact": 518}
    assert int((superclass_of() >= 0).sum()) == sum(sizes.values())
    names = list(RANGES)
    known = {207: "dog", 13: "bird", 51: "reptile", 301: "insect", 963: "food", 404: "artifact"}
    for index, name in known.items():  # golden retriever, junco, triceratops, ladybug, pizza, airliner
        assert names[superclass_of()[index]] == name
    for index in (269, 281, 958, 968, 980):  # timber wolf, tabby, hay, cup, volcano
        assert superclass_of()[index] == -1


def test_the_softmax_of_joined_logits_sums_the_softmax_of_the_classes():
    logits = torch.randn(5, 1000, dtype=torch.float64)
    joined = joined_logits(logits).softmax(1)
    for k, indices in enumerate(members().values()):
        torch.testing.assert_close(joined[:, k], logits.softmax(1)[:, indices].sum(1))
    torch.testing.assert_close(joined.sum(1), torch.ones(5, dtype=torch.float64))
