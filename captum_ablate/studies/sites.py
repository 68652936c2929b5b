"""Where a study ablates: the site of a layer, how many units it has, and the reference learned from the data."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from captum_ablate.activations import layer_pass
from captum_ablate.data import Batches
from captum_ablate.layers import ForwardFunc, layer_name, warn_of_positions
from captum_ablate.replay import Probe, Reference, ReferenceOption, Site, fit_of, plain_reference, probe_few
from captum_ablate.units import UnitAxis


class Look(NamedTuple):
    """A site, the number of its units, and the forward pass of a few samples that showed them."""

    site: Site
    units: int
    seen: Probe


def look(forward_func: ForwardFunc, layer: nn.Module, axis: UnitAxis, batches: Batches) -> Look:
    """Return the site of ``layer``'s output, after one forward pass of a few samples."""
    site = Site(layer, layer_name(forward_func, layer), axis)
    seen = probe_few(forward_func, site, next(iter(batches)))
    if not seen.shape or seen.shape[0] != len(seen.batch.target):
        raise ValueError(
            f"layer {site.name!r} gives an output of shape {tuple(seen.shape)} for {len(seen.batch.target)} samples; "
            "its first axis must be the samples"
        )
    warn_of_positions(layer, site.name, axis.unit_dim, seen.shape)
    return Look(site, axis.count(seen.shape), seen)


def learned_reference(
    reference: ReferenceOption, forward_func: ForwardFunc, site: Site, batches: Batches, seed: int = 0
) -> Reference:
    """Return the reference; "mean" and "resample" learn from the data in a forward pass of their own."""
    fit: Any = fit_of(reference, site.axis, seed)
    if fit is None:
        return plain_reference(reference)
    batches.refuse_one_shot(f"reference={reference!r} learns from the data first")
    for _, (parts,) in layer_pass(forward_func, [site.layer], batches, torch.clone, at_input=site.at_input):
        fit.add(parts[site.element])
    learned: Reference = fit.finish()
    return learned
