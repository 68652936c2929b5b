"""Several attributions over a labelled data set, of one layer or several, from one pass over the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from captum_ablate.attr.base import LayerDatasetAttribution
from captum_ablate.inputs.batches import Batches, UnpackBatch, batches_of_call
from captum_ablate.inputs.borrowed import borrowed
from captum_ablate.inputs.progress import with_progress
from captum_ablate.statistics.collect import LayerStatistics, collect


def attribute_together(
    attributions: Mapping[str, LayerDatasetAttribution],
    inputs: Any,
    target: Any = None,
    additional_forward_args: Any = None,
    attribute_to_layer_input: bool = False,
    *,
    batch_size: int | None = None,
    unpack_batch: UnpackBatch | None = None,
    per_class: bool = False,
    keepdim: bool = False,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Return by name what ``attribute`` of each attribution returns, from one pass over the data.

    All statistics of activations share the pass; a layer that several of them look at is pooled once.
    ``LayerUnitAblation`` makes passes of its own, after it.

    Args:
        attributions: attributions of one model by name, each of its own layer or layers, with its own options.
        inputs: as in ``attribute``, like all other arguments.

    Returns:
        The scores by name, in the order of ``attributions``.

    Raises:
        TypeError: if ``attributions`` is no mapping, is empty, or holds anything but attributions over a data set.
        ValueError: if the models differ, or one of the attributions cannot be computed.

    Example:
        >>> import torch
        >>> from captum_ablate import LayerClassSelectivity, LayerMeanActivity, attribute_together
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Tanh())
        >>> both = {"activity": LayerMeanActivity(model, ["0", "1"]), "selectivity": LayerClassSelectivity(model, "0")}
        >>> x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, -1.0]])
        >>> scores = attribute_together(both, x, target=[0, 0, 1, 1])
        >>> scores["activity"][0].tolist(), [len(layer) for layer in scores["activity"]]
        ([1.5, 0.75], [2, 2])
    """
    _check(attributions)
    batches = batches_of_call(
        inputs,
        target,
        additional_forward_args,
        forward_func=next(iter(attributions.values())).forward_func,
        batch_size=batch_size,
        unpack_batch=unpack_batch,
    )
    alone = [name for name, attribution in attributions.items() if attribution.source != "activations"]
    if alone:
        batches.refuse_one_shot(f"{alone[0]!r} makes passes of its own")
    if per_class:
        for attribution in attributions.values():
            attribution.check_per_class()
    sharing = {name: attribution for name, attribution in attributions.items() if name not in alone}
    statistics = _collected(sharing, batches, attribute_to_layer_input, show_progress) if sharing else {}
    results = {
        name: sharing[name].results(found, per_class=per_class, keepdim=keepdim) for name, found in statistics.items()
    }
    for name in alone:
        results[name] = attributions[name].attribute(
            batches,
            attribute_to_layer_input=attribute_to_layer_input,
            per_class=per_class,
            keepdim=keepdim,
            show_progress=show_progress,
        )
    return {name: results[name] for name in attributions}


def _collected(
    attributions: Mapping[str, LayerDatasetAttribution], batches: Batches, at_input: bool, show_progress: bool
) -> dict[str, list[LayerStatistics]]:
    """Return by name the statistics that each attribution requests, for each of its layers, from one pass."""
    requests = {name: attribution.layer_requests() for name, attribution in attributions.items()}
    every = [one for own in requests.values() for one in own]
    forward_func = next(iter(attributions.values())).forward_func
    with borrowed(forward_func, batches.owner, *(one.layer for one in every)):
        shown = with_progress(batches, f"{len(attributions)} attributions", show_progress)
        found = iter(collect(forward_func, every, shown, at_input=at_input))
    return {name: [next(found) for _ in own] for name, own in requests.items()}


def _check(attributions: Any) -> None:
    if not isinstance(attributions, Mapping) or not attributions:
        raise TypeError("attributions must be a mapping of at least one name to an attribution over a data set")
    for name, attribution in attributions.items():
        if not isinstance(attribution, LayerDatasetAttribution):
            raise TypeError(
                f"{name!r} must be an attribution over a data set, such as LayerClassSelectivity(model, layer); got "
                f"{type(attribution).__name__}. unit_scores returns unit scores of Captum's per-sample attributions"
            )
    models = {id(attribution.forward_func) for attribution in attributions.values()}
    if len(models) > 1:
        raise ValueError(f"the attributions must be of one model to share a pass; got {len(models)} models")
