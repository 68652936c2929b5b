"""Methods that a user may pass to a comparison: recognised by its kind, and checked against the layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from captum_ablate.ablation import Site
from captum_ablate.attr import LayerDatasetAttribution
from captum_ablate.attr.inner import inner, layer_class, name_of, takes
from captum_ablate.attr.per_sample import unit_scores
from captum_ablate.attr.per_sample_scores import PerSampleScores
from captum_ablate.inputs.batch import Batch, map_tensors
from captum_ablate.inputs.batches import Batches
from captum_ablate.inputs.model import ForwardFunc, Layer, find_layer, layer_name
from captum_ablate.inputs.unchanged import unchanged
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.inputs.values import ARRAYS, tensor_of

Method: TypeAlias = "Tensor | LayerDatasetAttribution | PerSampleScores | RankingFunction"
"""Ready scores ``[units]``, an attribution over a data set, one of Captum's per sample, or a function."""

OF_THE_EVALUATOR = ("unit_dim", "layer_mask")
OF_THE_CALL = ("batch_size", "unpack_batch")
"""Options of ``unit_scores`` that the evaluator, or its call, sets for all methods."""


def as_method(method: Any, site: Site, call_options: Mapping[str, Any] | None = None) -> Method:
    """Return what ``method`` means for the layer of ``site``; ``call_options`` are those of the evaluator's call.

    Raises:
        TypeError: if it is of no kind that is known.
        ValueError: if it belongs to another layer, or has other units than the evaluator.
    """
    options: dict[str, Any] = {}
    if isinstance(method, partial) and (method.func is unit_scores or _is_of_captum(method.func)):
        if method.func is not unit_scores or len(method.args) != 1:
            raise TypeError("a functools.partial must be partial(unit_scores, attribution, ...)")
        (method,), options = method.args, dict(method.keywords)
    if isinstance(method, (Tensor, list, *ARRAYS)):
        return _given(method)
    if isinstance(method, type):
        raise TypeError(f"{method.__name__} is a class; pass an attribution: {method.__name__}(model, layer)")
    if is_function(method):
        return RankingFunction(method)
    if not callable(getattr(method, "attribute", None)):
        raise TypeError(
            "a method must be a Captum layer attribution, one of captum_ablate's, functools.partial(unit_scores, ...), "
            f"a Tensor [units], or a function f(forward_func, layer, data) -> [units]; got {type(method).__name__}"
        )
    _check_layer(method, site)
    if isinstance(method, LayerDatasetAttribution):
        return _over_a_data_set(method, site)
    return _per_sample(method, options, site, call_options or {})


GIVEN = "scores"
"""What a method is called that came as a ready Tensor, ranked nobody knows where."""


def kind_of(method: Method) -> str:
    """Return what a method is: the class of an attribution, "function ...", or "scores" for a ready Tensor."""
    if isinstance(method, Tensor):
        return GIVEN
    if isinstance(method, RankingFunction):
        return f"function {getattr(method.function, '__name__', type(method.function).__name__)}"
    return name_of(method.attribution if isinstance(method, PerSampleScores) else method)


def is_function(method: Any) -> bool:
    """Tell whether a method is a function of the user's, or an object that is called like one."""
    if isinstance(method, (type, Tensor)) or hasattr(method, "attribute") or not callable(method):
        return False
    return not (isinstance(method, partial) and (method.func is unit_scores or _is_of_captum(method.func)))


def _is_of_captum(function: Any) -> bool:
    """Tell whether a function is the ``attribute`` of an attribution, which scores samples, not units."""
    return hasattr(getattr(function, "__self__", None), "attribute")


@dataclass(frozen=True)
class RankingFunction:
    """A function of the user's, ``f(forward_func, layer, data) -> scores [units]``."""

    function: Callable[..., Any]

    def scores(self, forward_func: ForwardFunc, site: Site, batches: Batches) -> Tensor:
        """Return what the function says of the layer; what it does to model, layer and data is taken back."""
        try:
            with unchanged(forward_func, site.layer):
                found = self.function(forward_func, site.layer, _Copies(batches))
        except Exception as error:
            text = str(error).splitlines()[0] if str(error) else ""
            hint = "; it is called as f(forward_func, layer, data)" if _was_not_entered(error) else ""
            raise ValueError(f"the function raised {type(error).__name__}: {text}{hint}") from error
        if not isinstance(found, (Tensor, list, tuple, *ARRAYS)):
            raise TypeError(
                f"the function must return a Tensor [units], one score for each; got {type(found).__name__}"
            )
        return _given(found)


def _was_not_entered(error: Exception) -> bool:
    """Tell whether a call failed for its arguments: the traceback has the frame of the caller alone."""
    trace = error.__traceback__
    return isinstance(error, TypeError) and trace is not None and trace.tb_next is None


class _Copies:
    """The batches, in copies that a function may write into."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            inputs, extra = map_tensors(lambda part: part.detach().clone(), batch)
            yield batch._replace(inputs=inputs, target=batch.target.clone(), additional_forward_args=extra)

    def __len__(self) -> int:
        return len(self._batches)


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


def _per_sample(method: Any, options: dict[str, Any], site: Site, call_options: Mapping[str, Any]) -> PerSampleScores:
    _take_shared(options, site, call_options)
    own = {k: options.pop(k) for k in ("target", "positions", "samples") if k in options}
    _set_side(method, options, site)
    return PerSampleScores(method, site.axis, element=site.element, attribute_kwargs=options, **own)


def _take_shared(options: dict[str, Any], site: Site, call_options: Mapping[str, Any]) -> None:
    """Remove from ``options`` what all methods of a comparison share; raise if it differs."""
    axis = {name: options.pop(name) for name in OF_THE_EVALUATOR if name in options}
    if axis:
        own = {"unit_dim": site.axis.unit_dim, "layer_mask": site.axis.groups}
        groups = UnitAxis.of(1, axis["layer_mask"]).groups if axis.get("layer_mask") is not None else None
        for name, value in axis.items():
            if (value if name == "unit_dim" else groups) != own[name]:
                given = f"{value!r}, and the evaluator has {own[name]!r}" if name == "unit_dim" else "another"
                raise ValueError(
                    f"{name} of unit_scores is the evaluator's here, because all methods rank the units that it "
                    f"ablates: this one is {given}; give it to the evaluator alone"
                )
    for name in OF_THE_CALL:
        if name in options:
            value, shared = options.pop(name), call_options.get(name)
            if value is not None and value != shared:
                raise ValueError(
                    f"{name} of unit_scores is the call's here, because all methods are ranked in one pass over the "
                    f"same batches: this one is {value!r}, and the call has {shared!r}; pass {name}= to compare, or "
                    "rank beforehand and compare the scores"
                )
    if options.pop("per_class", False):
        raise ValueError("a ranking needs one score for each unit; leave out per_class=True")
    options.pop("show_progress", None)  # the comparison has a bar of its own


def _set_side(method: Any, options: dict[str, Any], site: Site) -> None:
    """Let a per-sample attribution attribute to the layer's input where the evaluator ablates there."""
    name = name_of(method)
    if bool(options.get("attribute_to_layer_input", site.at_input)) != site.at_input:
        raise ValueError(
            f"attribute_to_layer_input is {options['attribute_to_layer_input']} for {name} and {site.at_input} for the "
            "evaluator; give it to the evaluator alone"
        )
    if site.at_input:
        if not takes(method, "attribute_to_layer_input"):
            raise ValueError(
                f"{name} cannot attribute to a layer's input: its attribute has no attribute_to_layer_input, and the "
                f"evaluator ablates the input of {site.name!r}"
            )
        options["attribute_to_layer_input"] = True


def _check_layer(method: Any, site: Site) -> None:
    own = inner(method)
    layer: Layer | None = getattr(own, "layer", None)
    if layer is None:
        raise ValueError(f"{name_of(method)} attributes inputs, not a layer; {layer_class(method)}")
    if isinstance(layer, (list, tuple)):
        raise ValueError("the attribution has a list of layers; the evaluator ablates one layer")
    module = find_layer(own.forward_func, layer) if isinstance(layer, str) else layer
    if module is not site.layer:
        name = layer_name(own.forward_func, module)
        whose = f"{name!r} of another model" if name == site.name else repr(name)
        raise ValueError(
            f"the attribution belongs to another layer, {whose}, not to {site.name!r} that the evaluator ablates"
        )


def check_names(attributions: Any) -> None:
    """Raise unless ``attributions`` is a mapping from names to methods."""
    if not isinstance(attributions, Mapping) or not attributions:
        raise TypeError("attributions must be a mapping of at least one name to an attribution or a Tensor [units]")
    if not all(isinstance(name, str) for name in attributions):
        raise TypeError(f"the names of attributions must be strings; got {list(attributions)!r}")


def shown_name(attribution: Any) -> str:
    """Return the name under which ``evaluate`` shows a method."""
    inside = attribution
    while isinstance(inside, partial):
        inside = inside.args[0] if inside.func is unit_scores and inside.args else inside.func
    if isinstance(inside, (Tensor, np.ndarray, list)):
        return "scores"
    return inside.get_name() if hasattr(inside, "get_name") else getattr(inside, "__name__", type(inside).__name__)
