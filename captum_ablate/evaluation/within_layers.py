r"""Does a method know the units within a layer, or only which layer matters? A second null for several layers.

Random orders over several layers mix them, so an order that takes the layer that matters first beats them, whatever it
does within. Here each order is remade so that it takes from all layers in equal shares: the k-th unit of a layer's
n units stands at :math:`(k + 1/2) / n`, ties between layers broken at random. What is left of a method is its order
within each layer. The null is random orders remade in the same way. The reverse of such an order is one too, so that
gaps are symmetric around 0 and ``statistics.null`` holds. The construction is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from captum_ablate.evaluation.areas import deficit_areas
from captum_ablate.evaluation.provenance import Provenance
from captum_ablate.statistics.null import against_chance, holm


@dataclass(frozen=True)
class WithinLayers:
    """The ``gap`` of a method's order within layers, held against random orders within layers.

    ``p`` is ``p_raw`` corrected for the number of methods (Holm).
    """

    gap: float
    z: float
    p_raw: float
    p_exact: float
    p: float


def has_null_within(provenance: Provenance) -> bool:
    """Tell whether there is a second null: of several layers, with random orders, on a fixed number of samples."""
    return len(provenance.layers) > 1 and provenance.n_random > 0 and provenance.sampled is None


def orders_within(orders: Sequence[Tensor], units: Iterable[int], n_random: int, seed: int) -> list[Tensor]:
    """Return ``orders [live]`` with all layers in equal shares, then ``n_random`` random orders of the same kind.

    ``units`` are the numbers of units by layer; units are numbered on from one layer to the next.

    >>> import torch
    >>> from captum_ablate.evaluation.within_layers import orders_within
    >>> last_layer_first = torch.tensor([3, 2, 1, 0])
    >>> [order.tolist() for order in orders_within([last_layer_first], [1, 3], 0, seed=0)]
    [[3, 2, 0, 1]]
    """
    layer_of = torch.repeat_interleave(torch.tensor([*units]))
    stream = torch.Generator().manual_seed(int(np.random.SeedSequence([seed, 4]).generate_state(1)[0]))
    live = orders[0]
    random = [live[torch.randperm(len(live), generator=stream)] for _ in range(n_random)]
    return [_in_equal_shares(order, layer_of[order], stream) for order in (*orders, *random)]


def _in_equal_shares(order: Tensor, layers: Tensor, stream: torch.Generator) -> Tensor:
    """Return ``order [live]`` of units of ``layers [live]`` remade; the order within each layer stays."""
    place = torch.empty(len(order), dtype=torch.float64)
    for layer in layers.unique():
        own = (layers == layer).nonzero().flatten()
        place[own] = (torch.arange(len(own), dtype=torch.float64) + 0.5) / len(own)
    mixed = torch.randperm(len(order), generator=stream)  # breaks ties between layers
    return order[mixed[place[mixed].argsort(stable=True)]]


def within_layers(
    names: Sequence[str],
    descending: Sequence[Tensor],
    ascending: Sequence[Tensor],
    fraction: Tensor,
    provenance: Provenance,
) -> Mapping[str, WithinLayers]:
    """Return what the orders within layers say, by method, from their curves and those of random orders after them."""
    pairs = zip(descending, ascending, strict=True)
    gaps = [float((deficit_areas(a, fraction) - deficit_areas(b, fraction)).mean()) for a, b in pairs]
    null = np.array(gaps[len(names) :])
    found = {}
    for name, gap in zip(names, gaps, strict=False):
        z, p_raw, p_exact = against_chance(gap, null)
        if provenance.withholds_p(name):
            p_raw = p_exact = float("nan")
        found[name] = WithinLayers(gap, z, p_raw, p_exact, p_raw)
    p = holm(np.array([one.p_raw for one in found.values()])).tolist()
    return {name: replace(one, p=corrected) for (name, one), corrected in zip(found.items(), p, strict=True)}
