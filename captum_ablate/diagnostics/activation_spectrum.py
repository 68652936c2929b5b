"""The spectra of one layer or several, from one pass over the samples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from math import inf
from typing import Any

from torch import Tensor

from captum_ablate.diagnostics.bootstrap import grouped_covariances
from captum_ablate.diagnostics.spectrum import ActivationSpectrum
from captum_ablate.diagnostics.unlabelled import unlabelled_batches
from captum_ablate.inputs.batches import UnpackBatch
from captum_ablate.inputs.borrowed import borrowed
from captum_ablate.inputs.model import ForwardFunc, Layer, as_model, find_layer, layer_name
from captum_ablate.inputs.progress import with_progress
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.inputs.values import int_or_none, whole_number
from captum_ablate.statistics.covariance import processes
from captum_ablate.statistics.pooled import pooled_activations


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

    Activations are averaged over positions (channels are units), centred and not scaled. Memory is one batch and
    ``units x units``. Under ``torch.distributed`` each process passes its shard of the data; all get the spectrum of
    the whole. After Marshall and Kirchner (2024, arXiv 2401.17975).

    Args:
        layer: a module or its dotted name. A list of them shares one pass and one bootstrap.
        data: inputs alone, ``(inputs, target)``, or an iterable of batches with or without labels. Labels are ignored.
        fit_range: first and last rank of the fit, from 1; by default 10 .. min(rank / 2, 500), and at least half a
            decade. A layer too narrow for it, or samples too few to resample it, get no fit but a reason, ``refusal``.
        stimulus_dim: d of the threshold 1 + 2 / d; infinite for natural images, 1 for a path of stimuli.
        unit_dim: axis of the units; None makes every element of the output a unit.
        replicates: simulated codes that take off what few samples do, and bootstrap replicates of 40 random groups of
            samples, which ``exponents_differ`` needs; 0 for the plain fit and no interval.

    Returns:
        One result; a list for a list of layers; a tuple where a layer returns a tuple of tensors.

    Raises:
        ValueError: if a setting is out of range, a layer is not found or is in training mode, or there is one sample.
        TypeError: if a batch has no tensor of inputs.

    Example:
        >>> import torch
        >>> from captum_ablate import activation_spectrum
        >>> scale = torch.arange(1, 101) ** -0.75  # the eigenvalues are i^-1.5
        >>> samples = torch.randn(1000, 100, generator=torch.Generator().manual_seed(0)) * scale
        >>> model = torch.nn.Sequential(torch.nn.Identity())
        >>> spectrum = activation_spectrum(model, "0", samples, replicates=50)
        >>> f"alpha {spectrum.alpha:.1f}, {spectrum.verdict}"
        'alpha 1.5, smooth'
    """
    _check_settings(fit_range, stimulus_dim, replicates)
    options: dict[str, Any] = {
        "fit_range": fit_range,
        "stimulus_dim": float(stimulus_dim),
        "replicates": replicates,
        "seed": seed,
    }
    model = as_model(forward_func)
    several = isinstance(layer, (list, tuple))
    named: list[Any] = list(layer) if isinstance(layer, (list, tuple)) else [layer]
    if not named:
        raise ValueError("the list of layers is empty; name at least one")
    layers = [find_layer(model, one) for one in named]
    axis = UnitAxis.of(unit_dim, layer_mask)
    batches = unlabelled_batches(data, forward_func=model, batch_size=batch_size, unpack_batch=unpack_batch)
    with borrowed(model, batches.owner, *layers):
        passes = pooled_activations(model, layers, with_progress(batches, "spectrum", show_progress), axis)
        first = next(passes)
        grouped = grouped_covariances(
            (part.values for parts in pooled for part in parts) for pooled in chain([first], passes)
        )
    if processes() > 1:
        grouped = [one.all_reduced() for one in grouped]
    outputs, results = iter(grouped), []  # one output per layer, or several where it returns a tuple
    for module, parts in zip(layers, first, strict=True):
        name = layer_name(model, module)
        spectra = tuple(ActivationSpectrum.of(name, next(outputs), dtype=part.dtype, **options) for part in parts)
        results.append(spectra[0] if len(spectra) == 1 else spectra)
    return results if several else results[0]


def _check_settings(fit_range: tuple[int, int] | None, stimulus_dim: float, replicates: int) -> None:
    if fit_range is not None:
        pair = tuple(fit_range)
        if len(pair) != 2 or any(int_or_none(rank) is None for rank in pair) or not 1 <= pair[0] < pair[1] - 1:
            raise ValueError(
                f"fit_range must be the first and last rank of the fit, from 1, with one between; got {fit_range!r}"
            )
    if not stimulus_dim > 0:
        raise ValueError(f"stimulus_dim must be the dimension of the stimuli, above 0; got {stimulus_dim!r}")
    whole_number(replicates, "replicates", 0, "an int, at least 0 (0: no interval)")
