"""Six large classes of ImageNet: which of the 1,000 standard indices are dogs, birds, ... (our choice).

The data hold one image of each of the 1,000 classes, too few for statistics of a class. WordNet's tree puts many
classes under one word, and the standard order, by WordNet's numbers, keeps most of these together, as ranges.
``artifact`` is the word above nearly everything made by hand.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.papers.common.data import Labelled, image_net
from captum_ablate.ablation import metrics

RANGES: dict[str, tuple[tuple[int, int], ...]] = {
    "dog": ((151, 268),),
    "bird": ((7, 24), (80, 100), (127, 146)),
    "reptile": ((33, 68),),
    "insect": ((300, 326),),
    "food": ((924, 957), (959, 967), (969, 969)),
    "artifact": ((398, 915),),
}
"""First and last index, both included. Hay (958) and cup (968) lie among the food and are left out."""


def members() -> dict[str, Tensor]:
    """Return the standard indices of the classes in each superclass, ascending."""
    return {
        name: torch.cat([torch.arange(first, last + 1) for first, last in ranges]) for name, ranges in RANGES.items()
    }


def superclass_of() -> Tensor:
    """Return the superclass of each standard index, ``[1000]``: its position in ``RANGES``, or -1."""
    found = torch.full((1000,), -1)
    for number, indices in enumerate(members().values()):
        found[indices] = number
    return found


def joined_logits(logits: Tensor) -> Tensor:
    """Return ``[n, superclasses + 1]`` from ``logits [n, 1000]``: log-sum-exp of each, and last of all other classes.

    The softmax of the joined logits sums the softmax probabilities of the classes.
    """
    groups = [*members().values(), (superclass_of() == -1).nonzero().flatten()]
    return torch.stack([torch.logsumexp(logits[:, indices.to(logits.device)], dim=1) for indices in groups], dim=1)


def right_superclass(outputs: Tensor, target: Tensor) -> Tensor:
    """Return 1 if the largest joined logit is that of the label, else 0, ``[n]``."""
    return metrics.accuracy(joined_logits(outputs), target)


def superclass_margin(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the joined logit of the label minus the largest other joined logit, ``[n]``."""
    return metrics.margin(joined_logits(outputs), target)


MOST_OF_A_SUPERCLASS = 118
"""There are 118 dogs; of the 518 artifacts as many are drawn."""


def superclass_images() -> tuple[Labelled, Labelled]:
    """Return both halves of the images of each superclass, uint8, labelled with its number; no class is in both."""
    data, generator = image_net(), torch.Generator().manual_seed(0)
    halves: tuple[list[Tensor], list[Tensor]] = ([], [])
    for indices in members().values():
        drawn = indices[torch.randperm(len(indices), generator=generator)][:MOST_OF_A_SUPERCLASS]
        for half, part in zip(halves, drawn.tensor_split(2), strict=True):
            half.append(part)
    of, (rank, evaluate) = superclass_of(), (torch.cat(half) for half in halves)
    return Labelled(data.images[rank], of[rank]), Labelled(data.images[evaluate], of[evaluate])
