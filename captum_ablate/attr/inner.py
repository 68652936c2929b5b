"""Captum's attributions as objects: what a wrapper such as ``NoiseTunnel`` holds, what they take, how to copy them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import captum.attr
from captum.attr import (
    InternalInfluence,
    LayerActivation,
    LayerConductance,
    LayerDeepLift,
    LayerFeatureAblation,
    LayerGradCam,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    LayerLRP,
)
from torch import nn

from captum_ablate.attr.base import LayerDatasetAttribution

DRAWING_NOTHING = (
    *(InternalInfluence, LayerActivation, LayerConductance, LayerDeepLift, LayerFeatureAblation, LayerGradCam),
    *(LayerGradientXActivation, LayerIntegratedGradients, LayerLRP),
)
"""Attributions without random numbers: those of two models may run at the same time."""


def inner(attribution: Any) -> Any:
    """Return the attribution that a wrapper holds; anything else as it is."""
    while hasattr(attribution, "attribution_method"):
        attribution = attribution.attribution_method
    return attribution


def name_of(attribution: Any) -> str:
    """Return the class of an attribution, with what it wraps: "NoiseTunnel(LayerConductance)"."""
    name = type(attribution).__name__
    if not hasattr(attribution, "attribution_method"):
        return name
    return f"{name}({name_of(attribution.attribution_method)})"


def made_of(name: str) -> str:
    """Return how to make an attribution of this name: "NoiseTunnel(LayerConductance(model, layer))"."""
    bare = name.rstrip(")")
    return f"{bare}(model, layer){')' * (len(name) - len(bare))}"


def changed(attribution: Any, **attributes: Any) -> Any:
    """Return a copy whose innermost attribution has other attributes, such as ``layer=``."""
    new = copy.copy(attribution)
    if hasattr(attribution, "attribution_method"):
        new.attribution_method = changed(attribution.attribution_method, **attributes)
        return new
    for name, value in attributes.items():
        setattr(new, name, value)
    return new


def parameters(attribution: Any) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of ``attribute``; a wrapper hands its ``**kwargs`` on to what it wraps."""
    own = inspect.signature(attribution.attribute).parameters
    if not hasattr(attribution, "attribution_method"):
        return own
    named = {name: p for name, p in own.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
    return {**parameters(attribution.attribution_method), **named}


def takes(attribution: Any, name: str) -> bool:
    """Tell whether ``attribute`` takes an argument of this name."""
    found = parameters(attribution)
    return name in found or takes_any(found)


def takes_any(found: Mapping[str, inspect.Parameter]) -> bool:
    """Tell whether arguments of any name are taken."""
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in found.values())


def needs_baselines(found: Mapping[str, inspect.Parameter]) -> bool:
    """Tell whether baselines must be given, because they are a distribution of inputs."""
    return "baselines" in found and found["baselines"].default is inspect.Parameter.empty


def may_draw(attribution: Any) -> bool:
    """Tell whether an attribution may draw random numbers."""
    return type(attribution) not in DRAWING_NOTHING


def layer_class(attribution: Any) -> str:
    """Return what to take in the place of an attribution of inputs, as words of an error."""
    name = f"Layer{type(inner(attribution)).__name__}"
    return (
        f"take Captum's {name}" if hasattr(captum.attr, name) else "take a layer attribution such as LayerConductance"
    )


def check_attribution(attribution: Any) -> None:
    """Raise unless ``attribution``, or what it wraps, is a per-sample attribution of one layer."""
    if isinstance(attribution, LayerDatasetAttribution):
        raise TypeError(
            f"{type(attribution).__name__} returns one score per unit already; "
            "call attribution.attribute(inputs, target=...)"
        )
    if not callable(getattr(attribution, "attribute", None)):
        raise TypeError(
            "attribution must be a Captum layer attribution such as LayerConductance(model, layer); "
            f"got {type(attribution).__name__}"
        )
    own = inner(attribution)
    if isinstance(own, LayerDatasetAttribution):
        raise TypeError(
            f"{name_of(attribution)} wraps a score over a whole data set, which has no samples to repeat; wrap a "
            "per-sample attribution such as LayerGradientXActivation(model, layer)"
        )
    if not isinstance(getattr(own, "layer", None), nn.Module) or not callable(getattr(own, "forward_func", None)):
        raise TypeError(
            f"{name_of(attribution)} is not an attribution of one layer: it must have .forward_func and .layer; "
            + layer_class(attribution)
        )
