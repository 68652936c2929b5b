"""One batch, ready to run under masks: by programs of its tape, or by a replay of modules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from captum_ablate.ablation.hook_loop import Replace
from captum_ablate.ablation.program import Program, RowReference
from captum_ablate.ablation.recording import Recording, Taken
from captum_ablate.ablation.reference import Reference
from captum_ablate.ablation.site import Site
from captum_ablate.ablation.strategy import Strategy
from captum_ablate.ablation.tape import Tape
from captum_ablate.ablation.weights import Weights
from captum_ablate.inputs.batch import Batch


class Ready:
    """A batch whose layer has run, with the values that replace its activations.

    If its prefix ran by other operators than the model's, ``exact`` makes the batch again by those of a full pass.
    """

    def __init__(
        self,
        taken: Taken,
        references: Sequence[Reference],
        first: int,
        weights: Weights,
        exact: Callable[[], Ready] | None = None,
    ) -> None:
        self.taken, self.weights, self._exact = taken, weights, exact
        self.references = _rows_of(taken, references, first)
        self._last: Program | None = None

    @property
    def device(self) -> torch.device:
        """The device of the activations."""
        return self.taken.activation.device

    @property
    def has_tape(self) -> bool:
        """Tell whether there is a tape of the suffix."""
        return isinstance(self.taken.tape, Tape)

    @property
    def tape(self) -> Tape:
        """The tape of the suffix."""
        assert isinstance(self.taken.tape, Tape)
        return self.taken.tape

    @cached_property
    def plain(self) -> Program:
        """The program that runs the tape as recorded."""
        return self._made(Strategy())

    @cached_property
    def exact(self) -> Ready:
        """This batch, made by the operators of a full forward pass."""
        return self if self._exact is None else self._exact()

    def program(self, strategy: Strategy) -> Program:
        """Return the program of the tape under a strategy; the last one is cached."""
        if strategy.is_exact:
            return self.plain
        if self._last is None or self._last.strategy != strategy:
            self._last = self._made(strategy)
        return self._last

    def replay(self, mask: Tensor) -> Any:
        """Return the outputs for a mask, ``[units]`` or ``[n, units]``, by a replay of modules."""
        assert isinstance(self.taken, Recording)
        replace = [ablating(s, mask, r) for s, r in zip(self.taken.sites, self.references, strict=True)]
        return self.taken.replay(replace[0](self.taken.activation), replace[1:])

    def _made(self, strategy: Strategy) -> Program:
        taken = self.taken
        return Program(self.tape, taken.sites, taken.activation, self.references, strategy, self.weights)


def casts_as_recorded(batch: Batch) -> torch.autocast:
    """Switch autocast off, because the casts that it made are operators of the tape."""
    return torch.autocast(batch.target.device.type, enabled=False)


def ablating(site: Site, mask: Tensor, reference: RowReference) -> Replace:
    """Return the function that ablates the units of ``mask``, over the units of all sites, at one site."""

    def replace(activation: Tensor) -> Tensor:
        values = reference(activation) if callable(reference) else reference
        return site.ablated(activation, mask[..., site.units].to(activation.device), values)

    return replace


def _rows_of(taken: Taken, references: Sequence[Reference], first: int) -> list[RowReference]:
    """Return what replaces each site's activation: values, or a function at later sites if it reads the activation."""
    target = taken.batch.target
    return [
        partial(reference, target=target, first=first)
        if k > 0 and getattr(reference, "is_live", False)
        else reference(activation, target, first)
        for k, (reference, activation) in enumerate(zip(references, taken.activations, strict=True))
    ]
