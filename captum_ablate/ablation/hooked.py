"""Full forward passes of one model with its sites hooked: the judge of all else, and the fall-back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_ablate.ablation.checks import difference, equal, rows_of
from captum_ablate.ablation.reference import Reference
from captum_ablate.ablation.site import Site
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.model import ForwardFunc
from captum_ablate.inputs.unchanged import unchanged
from captum_ablate.inputs.units import check_same_units
from captum_ablate.statistics.activation_checks import check_activations, check_calls

Replace = Callable[[Tensor], Tensor]
FEW = 2
"""Samples of the checks on few: enough to find a network that mixes samples."""


def full_forward(forward_func: ForwardFunc, sites: Sequence[Site], batch: Batch, replace: Sequence[Replace]) -> Any:
    """Return the model's outputs with ``replace[k](activation)`` in the place of site k's activation."""

    def new_output(number: int, output: Any) -> Any:
        return sites[number].with_part(output, replace[number](sites[number].part(output)))

    with ExitStack() as stack, torch.no_grad():
        runs = [stack.enter_context(site.hooked(partial(new_output, k))) for k, site in enumerate(sites)]
        outputs = call(forward_func, batch)
    for site, seen in zip(sites, runs, strict=True):
        check_calls(forward_func, site.layer, site.name, len(seen), lambda: call(forward_func, batch))
    return outputs


class Probe(NamedTuple):
    """An intact forward pass of ``batch``: the ``outputs``, and the ``shapes`` of the sites' activations.

    ``order`` holds the sites' numbers in running order.
    """

    batch: Batch
    shapes: tuple[torch.Size, ...]
    order: tuple[int, ...]
    outputs: Any


def probe(forward_func: ForwardFunc, sites: Sequence[Site], batch: Batch) -> Probe:
    """Run one intact forward pass; find the order of the sites and the shapes of their activations."""
    shapes = dict[int, torch.Size]()

    def note(number: int, activation: Tensor) -> Tensor:
        shapes.setdefault(number, activation.shape)
        return activation

    outputs = full_forward(forward_func, sites, batch, [partial(note, k) for k in range(len(sites))])
    return Probe(batch, tuple(shapes[k] for k in range(len(sites))), tuple(shapes), outputs)


def probe_few(forward_func: ForwardFunc, sites: Sequence[Site], batch: Batch) -> Probe:
    """Run a few samples of ``batch`` through the model, or all if it does not take few, and leave no trace."""
    with unchanged(forward_func):
        try:
            return probe(forward_func, sites, batch.take(slice(FEW)))
        except Exception:  # a model made for one batch size, or the user's mistake, which the next pass raises again
            return probe(forward_func, sites, batch)


class Look(NamedTuple):
    """A pass with no unit ablated: ``activations`` at the sites, seconds ``before`` the first site and ``after`` it."""

    outputs: Any
    activations: list[Tensor]
    before: float
    after: float


class FullPasses:
    """Run ``forward_func`` with the units of masks ablated; ``sites`` are in running order."""

    def __init__(self, forward_func: ForwardFunc, sites: Sequence[Site], references: Sequence[Reference]) -> None:
        self.forward_func, self.sites, self.references = forward_func, list(sites), list(references)

    @property
    def names(self) -> str:
        """Names of the layers, for messages."""
        return ", ".join(repr(site.label) for site in self.sites)

    def put_in_order(self, seen: Probe) -> Probe:
        """Sort the sites into the order in which they ran, and return the probe in that order."""
        self.sites = [self.sites[k] for k in seen.order]
        self.references = [self.references[k] for k in seen.order]
        return seen._replace(order=tuple(range(len(seen.order))), shapes=tuple(seen.shapes[k] for k in seen.order))

    def probe(self, batch: Batch) -> Probe:
        """Run a few samples, and put the sites in running order."""
        return self.put_in_order(probe_few(self.forward_func, self.sites, batch))

    def intact(self, batch: Batch) -> Any:
        """Return the outputs of a pass that replaces nothing."""
        return full_forward(self.forward_func, self.sites, batch, [lambda activation: activation] * len(self.sites))

    def look(self, batch: Batch) -> Look:
        """Run a pass with no unit ablated, with a clock."""
        activations: list[Tensor] = []
        times = [now(batch.target.device)]

        def note(site: Site, activation: Tensor) -> Tensor:
            if not activations:
                times.append(now(batch.target.device))
            activations.append(activation.detach().clone())
            if site.units.stop is not None:
                check_same_units(site.units.stop - site.units.start, site.axis.count(activation.shape))
            return unablated(site, activation)

        outputs = full_forward(self.forward_func, self.sites, batch, [partial(note, site) for site in self.sites])
        times.append(now(batch.target.device))
        return Look(outputs, activations, times[1] - times[0], times[2] - times[1])

    def ablated(self, batch: Batch, mask: Tensor, first: int) -> Any:
        """Return the outputs with the units of ``mask`` ablated, ``[units]`` or ``[n, units]``.

        ``first`` is the position of sample 0.
        """

        def replace(site: Site, reference: Reference, activation: Tensor) -> Tensor:
            own = mask[..., site.units].to(activation.device)
            return site.ablated(activation, own, reference(activation, batch.target, first))

        pairs = zip(self.sites, self.references, strict=True)
        return full_forward(self.forward_func, self.sites, batch, [partial(replace, *pair) for pair in pairs])

    def check_repeats(self, batch: Batch, outputs: Any, again: Probe | None = None) -> None:
        """Refuse the model unless another intact pass returns ``outputs``.

        A few samples are compared, those of ``again`` if it has any, and all of them only if these differ.
        """
        n = len(batch.target)
        try:
            few = batch.take(slice(FEW))
            own = again.outputs if again is not None else self.intact(few)
            if equal(own, rows_of(outputs, slice(len(again.batch.target) if again else FEW), n)):
                return
        except Exception:  # a model made for one batch size
            pass
        own = self.intact(batch)
        if not equal(own, outputs):
            raise ValueError(
                "the model does not repeat itself: two intact forward passes on the same batch differ (by "
                f"{difference(own, outputs):.2g}), which cannot be told from an ablation. Possible causes are random "
                f"layers, state kept between calls, or code that needs the very tensor that {self.names} returned"
            )

    def check_finite(self, batch: Batch, number: int, table: Tensor) -> None:
        """Raise if a metric in ``table [1 + masks, n]`` is not finite; name the unit if its activation is the cause."""
        if bool(torch.isfinite(table).all()):
            return

        def check(site: Site, activation: Tensor) -> Tensor:
            check_activations(site.axis.pool(activation, batch.position_mask), len(batch.target), site.name, number)
            return activation

        full_forward(self.forward_func, self.sites, batch, [partial(check, site) for site in self.sites])
        raise ValueError(
            f"the metric is NaN or infinite for some samples with units of {self.names} ablated; "
            "check the model's outputs, the metric and the reference"
        )

    def is_right(self, batch: Batch, mask: Tensor, first: int, found: Any, like: Any) -> bool:
        """Check the outputs ``found`` under ``mask`` against a full forward pass; ``like`` are the intact outputs.

        A few samples are enough, unless the network mixes samples: then the whole batch is compared.
        """
        few = slice(FEW)
        try:
            if equal(self.ablated(batch.take(few), mask, first), rows_of(found, few, len(batch.target)), like=like):
                return True
        except Exception:  # for example a model made for one batch size
            pass
        return equal(self.ablated(batch, mask, first), found, like=like)


def unablated(site: Site, activation: Tensor) -> Tensor:
    """Return ``activation`` with no unit ablated, as a new tensor made by the operator that ablates."""
    nothing = torch.zeros(site.axis.count(activation.shape), dtype=torch.bool, device=activation.device)
    return site.ablated(activation, nothing, activation.new_zeros(()))


def now(device: torch.device) -> float:
    """Return the time in seconds: the processor's, which other jobs do not disturb, or on a GPU the wall clock's."""
    if device.type == "cpu":
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
