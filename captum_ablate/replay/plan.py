"""Which units to ablate together: chains of nested masks, each distinct mask once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Chain:
    """An order of units ``[units]``, ablated from its start, and the counts (ascending, from 1) to look at."""

    order: Tensor
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """All distinct masks of an evaluation, ``masks [masks, units]`` bool; ``rows[chain][step]`` is a mask's number."""

    chains: tuple[Chain, ...]
    masks: Tensor
    rows: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, chains: Iterable[Chain], units: int) -> Plan:
        """Return the plan of these chains over a layer of ``units`` units."""
        chains = tuple(chains)
        number: dict[bytes, int] = {}
        masks: list[Tensor] = []
        rows = []
        for chain in chains:
            mask, done, row = torch.zeros(units, dtype=torch.bool), 0, []
            for count in chain.counts:
                mask[chain.order[done:count]] = True
                done = count
                key = mask.numpy().tobytes()
                if key not in number:
                    number[key] = len(masks)
                    masks.append(mask.clone())
                row.append(number[key])
            rows.append(tuple(row))
        return cls(chains, torch.stack(masks), tuple(rows))

    @classmethod
    def singles(cls, units: int) -> Plan:
        """Return the plan that ablates each unit alone."""
        return cls.of((Chain(torch.tensor([u]), (1,)) for u in range(units)), units)

    @property
    def half(self) -> int:
        """The number of the mask whose size is nearest to half of the units."""
        sizes = self.masks.sum(1)
        return int((2 * sizes - self.masks.shape[1]).abs().argmin())

    @property
    def largest(self) -> int:
        """The number of the mask with the most units."""
        return int(self.masks.sum(1).argmax())
