"""Unit scores over a data set from any per-sample layer attribution of Captum."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from captum_ablate.attr.inner import inner
from captum_ablate.attr.per_sample_scores import PerSampleScores
from captum_ablate.attr.pieces import batches_of_samples
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.batches import UnpackBatch
from captum_ablate.inputs.borrowed import borrowed
from captum_ablate.inputs.model import Layer
from captum_ablate.inputs.progress import with_progress
from captum_ablate.inputs.units import UnitAxis


def unit_scores(
    attribution: Any,
    data: Any,
    *,
    target: str | int | None = "label",
    positions: str = "sum",
    samples: str = "mean",
    unit_dim: int | None = 1,
    layer_mask: Tensor | None = None,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    per_class: bool = False,
    show_progress: bool = False,
    additional_forward_args: Any = None,
    embedding: Layer | None = None,
    baseline_ids: int | Tensor = 0,
    **attribute_kwargs: Any,
) -> Any:
    """Return one float64 score per unit, ``[units]``, from a per-sample layer attribution such as conductance.

    The attribution of each sample is summed over positions, then averaged over samples. In a comparison,
    ``functools.partial(unit_scores, LayerGradientShap(model, layer), baselines=b)`` stands for an attribution with
    arguments of its own.

    Args:
        attribution: any object with Captum's ``attribute``, such as ``LayerConductance(model, layer)``, or a wrapper
            of one, such as ``NoiseTunnel``. ``LayerFeatureAblation`` gets a ``layer_mask`` of units.
        data: ``(inputs, target)``, or an iterable of batches ``(*inputs, labels)``.
        target: the output that is attributed: "label" (each sample's class), "prediction" (the largest output), an
            index for all samples, or None for a ``forward_func`` with one output. Of a model with one logit, ``[n]`` or
            ``[n, 1]``, "label" and "prediction" attribute their side: the logit for 1, minus the logit for 0; an index
            or None attributes the logit itself.
        positions: "sum", or "mean": the deficit itself for ``LayerFeatureAblation``, because Captum writes a unit's
            deficit into each of its positions.
        samples: "mean" (signed), or "mean_abs": the mean of the absolute value of each sample.
        unit_dim: axis of the units, as in ``LayerDatasetAttribution``; so is ``layer_mask``.
        batch_size: samples to run at a time if the data are tensors.
        unpack_batch: turns a batch of another form (a dict, say) into ``Batch(inputs, target)``.
        per_class: return ``[classes, units]``, the mean over the samples of each class.
        show_progress: show a progress bar.
        additional_forward_args: further arguments of the model, as in Captum.
        embedding: for models of token ids, which have nothing between them: the module, or its name, whose output
            ``[n, tokens, features]`` path methods interpolate. Ids, masks and all other inputs stay what they are.
        baseline_ids: the ids whose embedding is the baseline then: one for all tokens, or ``[tokens]``.
        attribute_kwargs: further arguments of ``attribute``, such as ``baselines=`` or ``n_steps=``.

    Returns:
        The scores; a tuple of them for a layer with a tuple of tensors. Tensors without the samples first, such as the
        last state of a GRU, are left out with a warning.

    Raises:
        TypeError: if ``attribution`` is no attribution of one layer, or its ``attribute`` lacks an argument.
        ValueError: if an option is unknown, or Captum fails on the layer; the message says what to change.

    Example:
        >>> import torch
        >>> from captum.attr import LayerGradientXActivation
        >>> from captum_ablate import unit_scores
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 2, bias=False)).eval()
        >>> model[1].weight.data = torch.eye(2)
        >>> x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, 3.0]])
        >>> unit_scores(LayerGradientXActivation(model, model[0]), (x, [0, 0, 1, 1])).tolist()
        [1.5, 1.0]
    """
    if additional_forward_args is not None:
        attribute_kwargs["additional_forward_args"] = additional_forward_args
        if isinstance(data, tuple) and not isinstance(data, Batch) and len(data) == 2:
            data = Batch(*data, attribute_kwargs.pop("additional_forward_args"))
    classes = target == "label" or per_class
    forward_func = getattr(inner(attribution), "forward_func", None)
    batches = batches_of_samples(data, forward_func, batch_size, unpack_batch, classes=classes)
    scoring = PerSampleScores(
        attribution,
        UnitAxis.of(unit_dim, layer_mask),
        target=target,
        positions=positions,
        samples=samples,
        attribute_kwargs={"embedding": embedding, "baseline_ids": baseline_ids, **attribute_kwargs},
    )
    with borrowed(inner(attribution).forward_func, scoring.forward_func, scoring.layer, batches.owner):
        for batch in with_progress(batches, scoring.name, show_progress):
            scoring.add(batch)
    return scoring.scores(per_class=per_class)
