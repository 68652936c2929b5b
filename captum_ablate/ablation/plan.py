"""Plan which units to ablate together: chains of nested masks, each distinct mask once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_ablate.inputs.values import int_or_none


@dataclass(frozen=True)
class Chain:
    """An order of units ``[units]``, ablated from its start, and the ascending ``counts`` (from 1) to measure at."""

    order: Tensor
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """All distinct masks of an evaluation, numbered: ``rows[chain][step]`` is the number of a mask.

    ``where[number]`` is the chain and the count where a mask comes first. Masks are made on demand, since all of them
    may be large.
    """

    units: int
    chains: tuple[Chain, ...]
    rows: tuple[tuple[int, ...], ...]
    where: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, chains: Iterable[Chain], units: int) -> Plan:
        """Return the plan of these chains over a layer of ``units`` units."""
        chains = tuple(chains)
        random = np.random.default_rng(0).integers(0, 2**64, (units, 2), dtype=np.uint64)
        numbers: dict[bytes, int] = {}
        where: list[tuple[int, int]] = []
        rows = []
        for k, chain in enumerate(chains):
            row = []
            for count, key in zip(chain.counts, _set_keys(chain, random), strict=True):
                if key not in numbers:
                    numbers[key] = len(where)
                    where.append((k, count))
                row.append(numbers[key])
            rows.append(tuple(row))
        return cls(units, chains, tuple(rows), tuple(where))

    @classmethod
    def both_ways(cls, orders: Iterable[Tensor], counts: tuple[int, ...], units: int) -> Plan:
        """Return the plan of each order ``[units]``, followed by its reverse, at the same counts."""
        return cls.of((Chain(one, counts) for order in orders for one in (order, order.flip(0))), units)

    @classmethod
    def singles(cls, units: int) -> Plan:
        """Return the plan that ablates each unit alone."""
        return cls.of((Chain(torch.tensor([u]), (1,)) for u in range(units)), units)

    def cut(self, masks: int) -> Plan:
        """Return a plan of about ``masks`` of the masks, at least one, taken from the first chains."""
        chains: list[Chain] = []
        left = masks
        for chain in self.chains:
            if left < 1:
                break
            counts = chain.counts[-left:]
            chains.append(Chain(chain.order, counts))
            left -= len(counts)
        return Plan.of(chains, self.units)

    def __len__(self) -> int:
        """Return the number of distinct masks."""
        return len(self.where)

    def mask(self, number: int, device: torch.device) -> Tensor:
        """Return a mask, ``[units]`` bool, True where a unit is ablated."""
        chain, count = self.where[number]
        mask = torch.zeros(self.units, dtype=torch.bool, device=device)
        return mask.index_fill_(0, self.order(chain, device)[:count], True)

    def order(self, chain: int, device: torch.device) -> Tensor:
        """Return a chain's order, ``[units]``, on a device. All orders are copied there once, so no mask waits."""
        if device not in self._orders:
            whole = torch.cat([chain.order for chain in self.chains]).to(device)
            self._orders[device] = whole.split([len(chain.order) for chain in self.chains])
        return self._orders[device][chain]

    def walk(self) -> list[int]:
        """Return every mask once, chain after chain, so that neighbours differ little; the fullest of a chain first."""
        numbers: dict[int, None] = {}
        for chain, row in enumerate(self.rows):
            numbers |= dict.fromkeys(row[::-1] if self.ends_fullest(chain) else row)
        return list(numbers)

    def ends_fullest(self, chain: int) -> bool:
        """Tell whether a chain ends with all of its order ablated, most units: rounding is least from there."""
        order, counts = self.chains[chain].order, self.chains[chain].counts
        return counts[-1] == len(order) and 2 * len(order) > self.units

    def never_ablated(self, chain: int, device: torch.device) -> Tensor:
        """Return the units that are not in a chain's order, such as dead ones, ascending."""
        kept = torch.ones(self.units, dtype=torch.bool, device=device)
        return kept.index_fill_(0, self.order(chain, device), False).nonzero().flatten()

    @cached_property
    def _orders(self) -> dict[torch.device, tuple[Tensor, ...]]:
        return {}

    @cached_property
    def half(self) -> int:
        """Number of the mask whose size is nearest to half of the units."""
        return min(range(len(self)), key=lambda number: abs(2 * self.where[number][1] - self.units))

    @cached_property
    def largest(self) -> int:
        """Number of the mask with the most units."""
        return max(range(len(self)), key=lambda number: self.where[number][1])


def _set_keys(chain: Chain, random: NDArray[Any]) -> list[bytes]:
    """Return a key for the set of units at each count. Equal sets have equal keys, whatever their order.

    Each unit has a random number of 128 bits, ``random [units, 2]``. The key of a set is the exclusive or of its units'
    numbers (Zobrist hashing).
    """
    together = np.bitwise_xor.accumulate(random[chain.order.numpy()], axis=0)
    return [together[count - 1].tobytes() for count in chain.counts]


def checked_steps(steps: int | Sequence[int] | None) -> int | tuple[int, ...] | None:
    """Return ``steps`` checked: a number, ascending counts, or None for every count.

    Raises:
        ValueError: if steps are below 1 or not whole.
        TypeError: if steps are no int, sequence or None.
    """
    if steps is None:
        return None
    number = int_or_none(steps)
    if number is not None:
        if number < 1:
            raise ValueError(f"steps must be at least 1, a sequence of counts, or None for every count; got {steps}")
        return number
    try:
        counts = [int(count) for count in steps]  # type: ignore[union-attr]  # TypeError is translated below
        whole = all(int(count) == count for count in steps)  # type: ignore[union-attr]
    except TypeError as error:
        raise TypeError(f"steps must be an int, a sequence of counts, or None; got {steps!r}") from error
    if not counts or not whole or min(counts) < 0 or max(counts) == 0:
        raise ValueError(f"steps must be counts of units to ablate, whole numbers from 1 on; got {list(steps)!r}")  # type: ignore[arg-type]
    return tuple(sorted(set(counts) - {0}))


def counts_of(steps: int | tuple[int, ...] | None, units: int) -> tuple[int, ...]:
    """Return the ascending counts of ablated units after step 0. The last one is all ``units``.

    Raises:
        ValueError: if a count exceeds ``units``.
    """
    if steps is None:
        return tuple(range(1, units + 1))
    if isinstance(steps, int):
        return tuple(sorted({round(k * units / steps) for k in range(1, steps + 1)} - {0}))
    if steps[-1] > units:
        raise ValueError(f"steps must not exceed the number of units, {units}; got {steps[-1]}")
    return tuple(sorted({*steps, units}))
