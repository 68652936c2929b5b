"""The eigenspectrum of a layer's activations: how redundant, and by its decay how smooth, the code of a layer is.

The idea is Marshall and Kirchner's (2024, arXiv 2401.17975); the threshold of smoothness is Stringer et al.'s (2019),
as we recall it. Range of the fit, bootstrap and the default units are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import inf
from typing import Any

import numpy as np
from torch import Tensor

from captum_ablate.diagnostics.resampling import GroupedCovariance, groups_for
from captum_ablate.diagnostics.spectrum_fit import fitted
from captum_ablate.diagnostics.unlabelled import unlabelled_batches
from captum_ablate.inputs.batches import UnpackBatch
from captum_ablate.inputs.model import (
    ForwardFunc,
    Layer,
    as_model,
    find_layer,
    layer_name,
    refuse_training_mode,
    warn_of_positions,
)
from captum_ablate.inputs.progress import with_progress
from captum_ablate.inputs.unchanged import unchanged
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.activations import pooled_pass
from captum_ablate.statistics.covariance import processes


def activation_spectrum(
    forward_func: ForwardFunc,
    layer: Layer | Sequence[Layer],
    data: Any,
    *,
    fit_range: tuple[int, int] | None = None,
    stimulus_dim: float = inf,
    unit_dim: int | None = 1,
    layer_mask: Tensor | None = None,
    replicates: int = 200,
    seed: int = 0,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    show_progress: bool = False,
) -> Any:
    """Return the ``ActivationSpectrum`` of a layer: the eigenvalues of its covariance and their power law.

    Activations are averaged over positions (channels are units), centred, not scaled, and never held together: memory
    is one batch and ``units x units``. Under ``torch.distributed`` each process passes its shard of the data and all
    get the spectrum of the whole.

    Args:
        layer: a module or its dotted name; a list of them shares one pass, and one bootstrap, and gives a list.
        data: inputs alone, ``(inputs, target)``, or an iterable of batches with or without labels, which are not used.
        fit_range: first and last rank of the fit, from 1; by default 10 .. min(rank / 2, 500), and at least half a
            decade. A layer too narrow for it, or samples too few to resample it, get no fit but a reason, ``refusal``.
        stimulus_dim: d of the threshold 1 + 2 / d; infinite for natural images, 1 for a path of stimuli.
        unit_dim: axis of the units; None makes every element of the output a unit.
        replicates: bootstrap replicates, of 40 random groups of samples.

    Returns:
        One result; a list for a list of layers; a tuple where a layer gives a tuple of tensors.
    """
    _check(fit_range, stimulus_dim, replicates)
    model = as_model(forward_func)
    several = isinstance(layer, (list, tuple))
    named: list[Any] = list(layer) if isinstance(layer, (list, tuple)) else [layer]
    if not named:
        raise ValueError("the list of layers is empty; name at least one")
    layers = [find_layer(model, one) for one in named]
    axis = UnitAxis.of(unit_dim, layer_mask)
    batches = unlabelled_batches(data, forward_func=model, batch_size=batch_size, unpack_batch=unpack_batch)
    shapes: list[Any] = []
    with unchanged(model, batches.owner, *layers):
        refuse_training_mode(model, *layers)
        passes = pooled_pass(model, layers, with_progress(batches, "spectrum", show_progress), axis, shapes=shapes)
        grouped = _streamed((part.values for part in pooled) for pooled in passes)
    if processes() > 1:
        grouped = [one.all_reduced() for one in grouped]
    make = partial(fitted, fit_range=fit_range, stimulus_dim=float(stimulus_dim), replicates=replicates, seed=seed)
    found = iter(grouped)
    results = []
    for module, parts in zip(layers, shapes, strict=True):
        name = layer_name(model, module)
        warn_of_positions(module, name, unit_dim, parts[0])
        own = tuple(make(name, next(found)) for _ in parts)
        results.append(own[0] if len(own) == 1 else own)
    return results if several else results[0]


def _streamed(batches: Any) -> list[GroupedCovariance]:
    """Return one grouped covariance per stream of units; which group a sample is in depends on its position alone."""
    generator, total, groups = np.random.default_rng(0), list[GroupedCovariance](), 1
    for batch in batches:
        values = list(batch)
        if not total:
            groups = groups_for([one.shape[1] for one in values])
        group = (generator.random(len(values[0])) * groups).astype(np.int64)
        new = [GroupedCovariance.of(one, group, groups) for one in values]
        total = [a + b for a, b in zip(total, new, strict=True)] if total else new
    return total


def _check(fit_range: tuple[int, int] | None, stimulus_dim: float, replicates: int) -> None:
    if fit_range is not None:
        pair = tuple(fit_range)
        if len(pair) != 2 or not all(isinstance(rank, int) for rank in pair) or not 1 <= pair[0] < pair[1] - 1:
            raise ValueError(
                f"fit_range must be the first and last rank of the fit, from 1, with one between; got {fit_range!r}"
            )
    if not stimulus_dim > 0:
        raise ValueError(f"stimulus_dim must be the dimension of the stimuli, above 0; got {stimulus_dim!r}")
    if not isinstance(replicates, int) or replicates < 0:
        raise ValueError(f"replicates must be an int, at least 0 (0: no interval); got {replicates!r}")
