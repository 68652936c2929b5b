"""What a user may pass as a method of a comparison: recognised by its kind, and checked against the layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from captum_ablate.ablation import Site
from captum_ablate.attr import LayerDatasetAttribution
from captum_ablate.attr.per_sample import PerSampleScores, unit_scores
from captum_ablate.inputs.model import Layer, find_layer, layer_name
from captum_ablate.inputs.values import ARRAYS, tensor_of

Method: TypeAlias = Tensor | LayerDatasetAttribution | PerSampleScores
"""Ready scores ``[units]``, an attribution over a data set, or a per-sample attribution of Captum's."""

OF_THE_EVALUATOR = ("unit_dim", "layer_mask", "batch_size", "unpack_batch", "per_class", "show_progress")
"""Options of ``unit_scores`` that the evaluator or its call sets for all methods."""


def as_method(method: Any, site: Site) -> Method:
    """Return what ``method`` means for the layer of ``site``.

    Raises:
        TypeError: if it is of no kind that is known.
        ValueError: if it belongs to another layer, or has other units than the evaluator.
    """
    options: dict[str, Any] = {}
    if isinstance(method, partial):
        if method.func is not unit_scores or len(method.args) != 1:
            raise TypeError("a functools.partial must be partial(unit_scores, attribution, ...)")
        (method,), options = method.args, dict(method.keywords)
    if isinstance(method, (Tensor, list, *ARRAYS)):
        return _given(method)
    if isinstance(method, type):
        raise TypeError(f"{method.__name__} is a class; pass an attribution: {method.__name__}(model, layer)")
    if not callable(getattr(method, "attribute", None)):
        raise TypeError(
            "a method must be a Captum layer attribution, one of captum_ablate's, "
            f"functools.partial(unit_scores, ...) or a Tensor [units]; got {type(method).__name__}"
        )
    _check_layer(method, site)
    if isinstance(method, LayerDatasetAttribution):
        return _over_a_data_set(method, site)
    return _per_sample(method, options, site)


def _given(values: Any) -> Tensor:
    scores = tensor_of(values, "scores").cpu().clone()
    if scores.is_complex() or scores.dtype == torch.bool:
        raise TypeError(f"scores must be real numbers; got {scores.dtype}")
    return scores.to(torch.float64)


def _over_a_data_set(method: LayerDatasetAttribution, site: Site) -> LayerDatasetAttribution:
    if method.axis != site.axis:
        what = f"unit_dim={method.axis.unit_dim} and the evaluator unit_dim={site.axis.unit_dim}"
        if method.axis.unit_dim == site.axis.unit_dim:
            what = "another layer_mask than the evaluator"
        raise ValueError(f"the attribution has {what}; give both the same")
    return method


def _per_sample(method: Any, options: dict[str, Any], site: Site) -> PerSampleScores:
    own = {k: options.pop(k) for k in ("target", "positions", "samples") if k in options}
    for k in OF_THE_EVALUATOR:
        if k in options:
            raise ValueError(f"{k} of unit_scores is the evaluator's here; give it to the evaluator")
    _set_side(method, options, site)
    return PerSampleScores(method, site.axis, element=site.element, attribute_kwargs=options, **own)


def _set_side(method: Any, options: dict[str, Any], site: Site) -> None:
    """Let a per-sample attribution attribute to the layer's input where the evaluator ablates there."""
    name = type(method).__name__
    if bool(options.get("attribute_to_layer_input", site.at_input)) != site.at_input:
        raise ValueError(
            f"attribute_to_layer_input is {options['attribute_to_layer_input']} for {name} and {site.at_input} for the "
            "evaluator; give it to the evaluator alone"
        )
    if site.at_input:
        if not _takes(method.attribute, "attribute_to_layer_input"):
            raise ValueError(
                f"{name} cannot attribute to a layer's input: its attribute has no attribute_to_layer_input, and the "
                f"evaluator ablates the input of {site.name!r}"
            )
        options["attribute_to_layer_input"] = True


def _takes(function: Callable[..., Any], name: str) -> bool:
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def _check_layer(method: Any, site: Site) -> None:
    layer: Layer | None = getattr(method, "layer", None)
    if layer is None:
        raise ValueError(
            f"{type(method).__name__} attributes inputs, not a layer; take Captum's Layer{type(method).__name__}"
        )
    if isinstance(layer, (list, tuple)):
        raise ValueError("the attribution has a list of layers; the evaluator ablates one layer")
    own = find_layer(method.forward_func, layer) if isinstance(layer, str) else layer
    if own is not site.layer:
        name = layer_name(method.forward_func, own)
        whose = f"{name!r} of another model" if name == site.name else repr(name)
        raise ValueError(
            f"the attribution belongs to another layer, {whose}, not to {site.name!r} that the evaluator ablates"
        )
