"""Scores of the units for each sample, from any per-sample Captum layer attribution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_ablate.attr.per_sample import SampleScoring, batches_of_samples
from captum_ablate.inputs.batches import UnpackBatch
from captum_ablate.inputs.model import borrowed
from captum_ablate.inputs.progress import with_progress
from captum_ablate.inputs.units import UnitAxis


def sample_scores(
    attribution: Any,
    data: Any,
    *,
    target: str | int | None = "label",
    positions: str = "sum",
    unit_dim: int | None = 1,
    layer_mask: Tensor | None = None,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    show_progress: bool = False,
    **attribute_kwargs: Any,
) -> Tensor:
    """Return the score of every unit for every sample, ``[n, units]`` float64; ``unit_scores`` averages the same.

    A sample's attribution is summed over positions (``positions="mean"``: averaged). Arguments as in ``unit_scores``;
    of a layer with a tuple of tensors the first counts, the one that the studies ablate.
    """
    scoring = SampleScoring(
        attribution,
        UnitAxis.of(unit_dim, layer_mask),
        target=target,
        positions=positions,
        attribute_kwargs=attribute_kwargs,
    )
    batches = batches_of_samples(data, scoring.forward_func, batch_size, unpack_batch)
    with borrowed(scoring.forward_func, scoring.layer, batches.owner):
        return torch.cat([scoring.per_sample(b)[0] for b in with_progress(batches, scoring.name, show_progress)])
