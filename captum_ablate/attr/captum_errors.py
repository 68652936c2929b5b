"""Explain Captum's own errors in terms of the user's model, with what to do: one row for each known cause."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from captum.attr import LayerDeepLift, LayerDeepLiftShap, LayerFeaturePermutation, LayerLRP


class Cause(NamedTuple):
    """A cause: ``methods`` that fail by it (none: all), ``pattern`` of the error's first line, and ``advice``."""

    methods: tuple[type, ...]
    pattern: str
    advice: str


CAUSES = (
    Cause(
        (LayerLRP,),
        r"relevance|(?i:rule)",
        "LayerLRP has no rule for {kind} {layer!r}, or for a module after it; name a Linear or Conv layer",
    ),
    Cause(
        (),
        r"leaf Variable|(?=.*view).*in[- ]?place",
        "{method} cannot pass {layer!r}, whose output the model changes in place; name the module after it, or set "
        "inplace=False there",
    ),
    Cause(
        (LayerFeaturePermutation,),
        r"",
        "{method} cannot be used with a target in Captum; take LayerFeatureAblation instead",
    ),
    Cause(
        (LayerDeepLift, LayerDeepLiftShap),
        r"redefine|used more than once",
        "{method} needs each activation module to be used once in a forward pass",
    ),
    Cause(
        (LayerDeepLift, LayerDeepLiftShap),
        r"'(function|method|partial)' object has no attribute",
        "{method} hooks the modules of a network: pass the nn.Module itself, not a function that calls it",
    ),
    Cause(
        (LayerDeepLift, LayerDeepLiftShap, LayerLRP),
        r"argument 'input' \(position 1\) must be Tensor|no attribute 'shape'",
        "{method} needs a network that returns a Tensor: wrap it in an nn.Module whose forward returns class outputs",
    ),
    Cause(
        (),
        r"quantized tensor",
        "{method} cannot write into the quantised output of {layer!r}; take LayerUnitAblation",
    ),
    Cause(
        (),
        r"not require grad|n't require grad|not have been used in the graph",
        "{method} needs gradients, and none reaches {layer!r}: the outputs do not depend on all that is attributed "
        "there (name a layer whose whole output, or input, is used), the model cuts gradients off (detach, no_grad, "
        "quantised layers, checkpoint with use_reentrant=True), or the layer returns integers, such as the indices of "
        "max-pooling; LayerUnitAblation needs none",
    ),
    Cause(
        (),
        r"no attribute 'shape'|^KeyError: 'shape'$",
        "{method} needs a model that returns a Tensor: wrap it, as in "
        "{method}(lambda *inputs: model(*inputs).logits, layer), or with ['logits'] or [0] for a dict or tuple",
    ),
)


def explained(error: Exception, attribution: Any, layer_name: str) -> str:
    """Return what ``error``, raised by the ``attribute`` of ``attribution``, means in the user's terms."""
    text = f"{type(error).__name__}: {error}".splitlines()[0] if str(error) else type(error).__name__
    method, kind = type(attribution).__name__, type(attribution.layer).__name__
    for methods, pattern, advice in CAUSES:
        if (not methods or isinstance(attribution, methods)) and re.search(pattern, text):
            return f"{advice.format(method=method, kind=kind, layer=layer_name)} ({text})"
    return f"{method} failed on layer {layer_name!r}: {text}"
