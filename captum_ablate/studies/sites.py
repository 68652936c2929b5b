"""Where a study ablates: the sites of layers, how many units they have, and references learned from the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from captum_ablate.ablation import Probe, Reference, ReferenceOption, Site, fit_of, plain_reference, probe_few
from captum_ablate.inputs.batches import Batches
from captum_ablate.inputs.model import ForwardFunc, layer_name, warn_of_positions
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.activations import layer_pass


class Look(NamedTuple):
    """Sites, the number of their units in all, and the forward pass of a few samples that showed them."""

    sites: list[Site]
    units: int
    seen: Probe


def look(forward_func: ForwardFunc, layers: Sequence[nn.Module], axis: UnitAxis, batches: Batches) -> Look:
    """Return the sites of the layers' outputs, whose units count on from layer to layer, after one forward pass."""
    sites = [Site(layer, layer_name(forward_func, layer), axis) for layer in layers]
    seen, start, placed = probe_few(forward_func, sites, next(iter(batches))), 0, []
    for site, shape in zip(sites, seen.shapes, strict=True):
        if not shape or shape[0] != len(seen.batch.target):
            raise ValueError(
                f"layer {site.name!r} gives an output of shape {tuple(shape)} for {len(seen.batch.target)} samples; "
                "its first axis must be the samples"
            )
        warn_of_positions(site.layer, site.name, axis.unit_dim, shape)
        units = axis.count(shape)
        placed.append(replace(site, units=slice(start, start + units)))
        start += units
    return Look(placed, start, seen)


def learned_reference(
    reference: ReferenceOption, forward_func: ForwardFunc, site: Site, batches: Batches, seed: int = 0
) -> Reference:
    """Return the reference; "mean" and "resample" learn from the data in a forward pass of their own."""
    fit: Any = fit_of(reference, site.axis, seed)
    if fit is None:
        return plain_reference(reference)
    for _, (parts,) in layer_pass(forward_func, [site.layer], batches, torch.clone, at_input=site.at_input):
        fit.add(parts[site.element])
    learned: Reference = fit.finish()
    return learned
