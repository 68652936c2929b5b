"""Look at the layers once, before anything is ablated: their shapes, their units, and whether samples come first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from torch import nn

from captum_ablate.ablation.hooked import Probe, probe_few
from captum_ablate.ablation.site import Site
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.model import ForwardFunc, layer_name
from captum_ablate.inputs.repeats import refuse_changes_in_training
from captum_ablate.inputs.token_axis import warn_of_units
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.activations import samples_first


class Located(NamedTuple):
    """``sites``, one a layer, with units numbered on from layer to layer, and the probe pass (``seen``)."""

    sites: list[Site]
    seen: Probe

    @property
    def units(self) -> int:
        """Number of units of all sites."""
        return self.sites[-1].units.stop

    @property
    def units_by_layer(self) -> dict[str, int]:
        """Number of units of each layer, by its name, or by "input of" its name."""
        return {site.label: site.units.stop - site.units.start for site in self.sites}

    @property
    def in_running_order(self) -> list[Site]:
        """The sites, in the order in which their layers ran."""
        return [self.sites[k] for k in self.seen.order]


def locate(
    forward_func: ForwardFunc,
    layers: Sequence[nn.Module],
    axes: Sequence[UnitAxis],
    batches: Iterable[Batch],
    *,
    at_input: bool = False,
) -> Located:
    """Find the units of ``layers``, or of their inputs, by one forward pass of a few samples of the first batch.

    Raises:
        ValueError: if the first axis of a layer's output (or input) is not the samples, or the model is in a training
            mode that changes its outputs.
    """
    names = [layer_name(forward_func, layer) for layer in layers]
    sites = [Site(*one, at_input) for one in zip(layers, names, axes, strict=True)]
    first = next(iter(batches))
    refuse_changes_in_training(forward_func, layers, first)
    seen = probe_few(forward_func, sites, first)
    n = len(seen.batch.target)
    shapes = [[shape] for shape in seen.shapes]
    samples_first(forward_func, layers, names, seen.batch, shapes, at_input=at_input, element=0)
    placed, start = [], 0
    for site, shape in zip(sites, seen.shapes, strict=True):
        if not shape or shape[0] != n:
            raise ValueError(
                f"{site.words} has shape {tuple(shape)} for {n} samples; its first axis must be the samples: build "
                "the layer with batch_first=True, or name a module after the transpose"
            )
        run = partial(call, forward_func, seen.batch)
        warn_of_units(forward_func, site.layer, site.name, site.axis, shape, run, at_input=at_input)
        stop = start + site.axis.count(shape)
        placed.append(replace(site, units=slice(start, stop)))
        start = stop
    return Located(placed, seen)
