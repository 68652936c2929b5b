"""Scores of the units for each sample, from any per-sample Captum layer attribution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_ablate.attr.per_sample_scores import PerSampleScores
from captum_ablate.attr.pieces import batches_of_samples
from captum_ablate.inputs.batches import UnpackBatch
from captum_ablate.inputs.borrowed import borrowed
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

    Of a layer with a tuple of tensors the first counts, the one that the studies ablate.

    Args:
        attribution: any object with Captum's ``attribute``, such as ``LayerConductance(model, layer)``.
        data: ``(inputs, target)``, or an iterable of batches ``(*inputs, labels)``.
        target: the output that is attributed: "label", "prediction", an index, or None, as in ``unit_scores``.
        positions: a sample's attribution of a unit is the "sum" over positions, or the "mean".
        unit_dim: axis of the units; None for every value a unit.
        layer_mask: groups of values that are one unit, as in the attributions.
        batch_size: samples at a time where data are tensors.
        unpack_batch: turns a batch of another form into ``Batch(inputs, target)``.
        show_progress: show a progress bar.
        attribute_kwargs: further arguments of ``attribute``, such as ``n_steps=20``.

    Raises:
        ValueError: if the model is in training mode, or the attribution has another shape than the layer.

    Example:
        >>> import torch
        >>> from captum.attr import LayerConductance
        >>> from captum_ablate.studies import sample_scores
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2)).eval()
        >>> sample_scores(LayerConductance(model, model[1]), (torch.randn(8, 4), torch.arange(8) % 2)).shape
        torch.Size([8, 6])
    """
    scoring = PerSampleScores(
        attribution,
        UnitAxis.of(unit_dim, layer_mask),
        target=target,
        positions=positions,
        attribute_kwargs=attribute_kwargs,
    )
    batches = batches_of_samples(data, scoring.forward_func, batch_size, unpack_batch)
    with borrowed(scoring.forward_func, scoring.layer, batches.owner):
        return torch.cat([scoring.per_sample(b)[0] for b in with_progress(batches, scoring.name, show_progress)])
