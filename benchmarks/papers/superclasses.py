"""A few large classes of ImageNet: which of the 1,000 standard indices are dogs, birds, ... (our choice).

The 1,000 images that we have hold one of each class, so that the statistics of a class would be those of one image.
WordNet's tree puts many of the classes under one word; the standard order, by WordNet's numbers, keeps most such words
together, as ranges. ``artifact`` is the word over nearly all that is made by hand.
"""

from __future__ import annotations

import torch
from torch import Tensor

RANGES: dict[str, tuple[tuple[int, int], ...]] = {
    "dog": ((151, 268),),
    "bird": ((7, 24), (80, 100), (127, 146)),
    "reptile": ((33, 68),),
    "insect": ((300, 326),),
    "food": ((924, 957), (959, 967), (969, 969)),
    "artifact": ((398, 915),),
}
"""First and last index, both included. Hay (958) and cup (968) stand among the food and are left out."""


def members() -> dict[str, Tensor]:
    """Return the standard indices of each superclass, ``[classes of it]``, ascending."""
    return {
        name: torch.cat([torch.arange(first, last + 1) for first, last in ranges]) for name, ranges in RANGES.items()
    }


def superclass_of() -> Tensor:
    """Return the superclass of each standard index, ``[1000]``: its place in ``RANGES``, or -1."""
    found = torch.full((1000,), -1)
    for number, indices in enumerate(members().values()):
        found[indices] = number
    return found


def joined_logits(logits: Tensor) -> Tensor:
    """Return ``[n, superclasses + 1]`` from ``logits [n, 1000]``: log-sum-exp over each, and last over what is in none.

    The softmax of the joined logits is the sum of the softmax probabilities of the classes joined.
    """
    groups = [*members().values(), (superclass_of() == -1).nonzero().flatten()]
    return torch.stack([torch.logsumexp(logits[:, indices.to(logits.device)], dim=1) for indices in groups], dim=1)
