"""A site, where units are ablated: one tensor of a layer's output (or input), replaced by a hook registered last."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate.inputs.quantised import quantised_as
from captum_ablate.inputs.threads import of_own_pass
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.layer_tensors import in_words, layer_inputs, tensor_parts


@dataclass(frozen=True)
class Site:
    """Tensor ``element`` of those that ``layer`` returns (or receives: ``at_input``), with its axis of units."""

    layer: nn.Module
    name: str
    axis: UnitAxis
    at_input: bool = False
    element: int = 0
    units: slice = field(default_factory=lambda: slice(None))
    """The place of its units among those of all sites."""

    @property
    def label(self) -> str:
        """Name in results: the layer's name, or "input of" that name."""
        return f"input of {self.name}" if self.at_input else self.name

    @property
    def words(self) -> str:
        """Name in messages: "layer 'name'", or "the input of layer 'name'"."""
        return in_words(self.name, self.at_input)

    def part(self, output: Any) -> Tensor:
        """Return the site's tensor of an output (or of what the layer receives), as numbers."""
        parts = tensor_parts(output, self.name, at_input=self.at_input)
        if self.element >= len(parts):
            raise ValueError(f"{self.words} has {len(parts)} tensors; there is no number {self.element}")
        return parts[self.element]

    def with_part(self, output: Any, new: Tensor) -> Any:
        """Return the output with ``new`` in the place of the site's tensor, quantised alike."""
        if isinstance(output, Tensor):
            return quantised_as(output, new)
        parts = list(output)
        place = [i for i, part in enumerate(parts) if isinstance(part, Tensor)][self.element]
        parts[place] = quantised_as(parts[place], new)
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)

    @contextmanager
    def hooked(self, replace: Callable[[Any], Any]) -> Iterator[list[int]]:
        """Hook the layer with ``replace(output) -> output``, and yield a list that grows by one with each run."""
        runs: list[int] = []

        def after(_module: nn.Module, _args: Any, output: Any) -> Any:
            runs.append(len(runs))
            return replace(output)

        def before(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            runs.append(len(runs))
            given = replace(layer_inputs(args, kwargs))
            return tuple(given[: len(args)]), dict(zip(kwargs, given[len(args) :], strict=True))

        handle = (
            self.layer.register_forward_pre_hook(of_own_pass(before), with_kwargs=True)
            if self.at_input
            else self.layer.register_forward_hook(of_own_pass(after))
        )
        try:
            yield runs
        finally:
            handle.remove()

    def ablated(self, activation: Tensor, mask: Tensor, replaced: Tensor) -> Tensor:
        """Return a new tensor: ``replaced`` where ``mask`` is set, ``activation`` elsewhere.

        ``mask`` is ``[units]``, or ``[n, units]``, one row a sample.
        """
        rows = mask if mask.ndim == 2 else mask[None]
        return torch.where(self.axis.spread(rows, activation.shape), replaced, activation)
