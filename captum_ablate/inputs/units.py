"""Units of a layer: which axis of its output holds them, and what is averaged away."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from captum_ablate.inputs.values import int_or_none, tensor_of

BLOCK = 2**17
"""Values widened to float64 at a time: 1 MiB, which stays in cache."""


COUNTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types whose values are counted as they are; all others are widened first."""


@dataclass(frozen=True)
class UnitAxis:
    """The units of an output ``[n, ...]``: indices along ``unit_dim``, or every element for ``None``.

    ``groups`` (from Captum's ``layer_mask``) joins indices into one unit: ``groups[i]`` is the unit of index i.
    """

    unit_dim: int | None = 1
    groups: tuple[int, ...] | None = None

    @classmethod
    def of(cls, unit_dim: int | None = 1, layer_mask: Tensor | None = None) -> UnitAxis:
        """Return the axis of the public arguments ``unit_dim`` and ``layer_mask``, checked."""
        dim = int_or_none(unit_dim)
        if unit_dim is not None and dim is None:
            raise TypeError(f"unit_dim must be an int or None (every element is a unit); got {unit_dim!r}")
        if dim == 0:
            raise ValueError("unit_dim=0 is the axis of the samples; units need another axis, such as 1 or -1")
        return cls(dim, None if layer_mask is None else _groups(layer_mask))

    def shape(self, shape: torch.Size | tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape ``[1, ..., units, ..., 1]`` in which one value per index broadcasts against an output."""
        if self.unit_dim is None:
            if len(shape) < 2:
                raise ValueError(f"a layer output of shape {tuple(shape)} has no axis for units besides the samples")
            return (1, *shape[1:])
        dim = self.unit_dim if self.unit_dim >= 0 else len(shape) + self.unit_dim
        if not 1 <= dim < len(shape):
            raise ValueError(
                f"unit_dim={self.unit_dim} is no unit axis of a layer output of shape {tuple(shape)}; "
                f"choose one of 1..{len(shape) - 1}, -1, or None for every element"
            )
        return tuple(size if d == dim else 1 for d, size in enumerate(shape))

    def count(self, shape: torch.Size | tuple[int, ...]) -> int:
        """Return the number of units of an output of this shape."""
        indices = prod(self.shape(shape))
        if self.groups is None:
            return indices
        if len(self.groups) != indices:
            raise ValueError(
                f"layer_mask must have one group number for each of the {indices} indices along "
                f"unit_dim={self.unit_dim}; got {len(self.groups)}"
            )
        return max(self.groups) + 1

    def positions(self, shape: torch.Size | tuple[int, ...]) -> int:
        """Return how many positions of an output are averaged into one index."""
        return prod(shape[1:]) // max(1, prod(self.shape(shape)))

    def pool(self, output: Tensor, counted: Tensor | None = None) -> Tensor:
        """Return the mean over positions, ``[n, units]``; with ``counted [n, positions]``, over those.

        It is float64, or complex128 of a complex output.
        """
        return self._by_unit(*self._counted(output, counted), mean=True)

    def total(self, output: Tensor, counted: Tensor | None = None) -> Tensor:
        """Return the sum over positions and over the indices of a group, ``[n, units]``, in the type of ``pool``."""
        return self._by_unit(*self._counted(output, counted), mean=False)

    def total_of_squares(self, output: Tensor, counted: Tensor | None = None) -> Tensor:
        """Return the sum of squares over positions (and over the indices of a group), in float64, ``[n, units]``."""
        output, _ = self._counted(output, counted)
        wide = torch.float32 if output.device.type == "mps" else torch.float64
        rows = max(1, BLOCK // max(1, output[:1].numel()))
        blocks = [self.total(block.detach().to(wide).square()) for block in output.split(rows)]
        return torch.cat(blocks)

    def counts(self, output: Tensor, counted: Tensor | None = None) -> Tensor:
        """Return how many positions of each sample count, int64 ``[n]``."""
        positions = self.positions(output.shape)
        if counted is None or positions == 1:
            return torch.full((len(output),), positions, device=output.device)
        return counted.flatten(1).sum(1)

    def _counted(self, output: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return ``output`` with 0 at positions that do not count, and how many of each sample do, ``[n]``.

        Where there are no positions nothing is left out.

        Raises:
            ValueError: if the output has other positions than ``counted``.
        """
        if counted is None:
            return output, None
        flat = counted.flatten(1).to(output.device)
        if self.unit_dim is None and output.ndim > 2:
            raise ValueError(
                "position_mask says which positions count, and with unit_dim=None every element is a unit, at its "
                "position; choose the axis of the units with unit_dim, such as -1 for tokens"
            )
        positions = self.positions(output.shape)
        if positions == 1:
            return output, None
        if tuple(flat.shape) != (len(output), positions):
            raise ValueError(
                f"position_mask is {list(counted.shape)}, and an output of shape {tuple(output.shape)} has {positions} "
                f"positions beside its units (unit_dim={self.unit_dim}): pass a mask [n, positions] of this layer's "
                "positions"
            )
        kept = self.shape(output.shape)
        sizes = [size if one == 1 else 1 for size, one in zip(output.shape[1:], kept[1:], strict=True)]
        spread = flat.reshape(len(output), *sizes)
        return torch.where(spread, output.detach(), output.new_zeros(())), flat.sum(1)

    def averages(self, output: Tensor) -> bool:
        """Tell whether pooling changes more than the shape; if not, the elements are the values of the units."""
        self.count(output.shape)
        return self.groups is not None or output.dtype not in COUNTED or self.positions(output.shape) != 1

    def _by_unit(self, output: Tensor, counts: Tensor | None = None, *, mean: bool) -> Tensor:
        units = self.count(output.shape)
        kept = self.shape(output.shape)
        dims = [d for d in range(1, output.ndim) if kept[d] == 1 and output.shape[d] != 1]
        output = output.detach()
        output = output.dequantize() if output.is_quantized else output
        wide = torch.float32 if output.device.type == "mps" else torch.float64  # MPS has no float64
        wide = wide.to_complex() if output.is_complex() else wide
        if dims:
            total = _sum(output, dims, wide)
            if mean and counts is not None:
                total /= counts.reshape(-1, *[1] * (total.ndim - 1))
            output = total.div_(self.positions(output.shape)) if mean and counts is None else total
        values = output.to(wide, copy=not dims).flatten(1)  # never a view of what the model may write into
        if self.groups is None:
            return values
        groups = torch.tensor(self.groups, device=values.device)
        joined = values.new_zeros(len(values), units).index_add(1, groups, values)
        return joined / torch.bincount(groups, minlength=units) if mean else joined

    def spread(self, values: Tensor, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """Return ``values [..., units]`` with one value for each index, ``[..., *self.shape(shape)[1:]]``."""
        kept = self.shape(shape)
        check_same_units(values.shape[-1], self.count(shape))
        if self.groups is not None:
            values = values[..., torch.tensor(self.groups, device=values.device)]
        return values.reshape(*values.shape[:-1], *kept[1:])


def check_same_units(before: int, now: int) -> None:
    """Raise if the number of units changes from one batch to another, as that of tokens may.

    Raises:
        ValueError: if it changes.
    """
    if before != now:
        raise ValueError(
            f"the number of units changes between batches, from {before} to {now}; "
            "choose the axis of the units with unit_dim (-1 for tokens of varying number)"
        )


def _sum(output: Tensor, dims: list[int], wide: torch.dtype) -> Tensor:
    """Return the sum over ``dims``, widened to ``wide`` first, a block of samples at a time.

    On the CPU a sum with ``dtype=`` makes a wide copy of everything: 5 to 10 times slower than blocks in cache.
    """
    rows = max(1, BLOCK // max(1, output[:1].numel()))
    if output.dtype == wide or output.device.type != "cpu" or rows >= len(output):
        return output.sum(dims, dtype=wide)
    scratch = torch.empty_like(output[:rows], dtype=wide)
    result = output.new_empty(
        [len(output), *(s for d, s in enumerate(output.shape) if d and d not in dims)], dtype=wide
    )
    for start in range(0, len(output), rows):
        block = output[start : start + rows]
        torch.sum(scratch[: len(block)].copy_(block), dims, out=result[start : start + rows])
    return result


def _groups(layer_mask: Tensor) -> tuple[int, ...]:
    mask = tensor_of(layer_mask, "layer_mask").cpu()
    if mask.is_floating_point() or mask.is_complex() or mask.numel() == 0 or int(mask.min()) < 0:
        raise ValueError(f"layer_mask must hold group numbers 0, 1, ...; got {mask.dtype} {tuple(mask.shape)}")
    if max(mask.shape, default=1) != mask.numel():
        raise ValueError(
            f"layer_mask must vary along unit_dim only, as [units] or [1, units, 1, 1]; got shape {tuple(mask.shape)}"
        )
    numbers = [int(g) for g in mask.flatten()]
    if set(numbers) != set(range(max(numbers) + 1)):
        raise ValueError(f"layer_mask must use every group number from 0 to {max(numbers)}; some are missing")
    return tuple(numbers)
