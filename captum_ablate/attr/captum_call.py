"""Call Captum's ``attribute`` on a batch: it gets what has a row per sample, the rest is bound to the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate.attr.bound import bound, left_of
from captum_ablate.attr.embedded import embedded
from captum_ablate.attr.inner import needs_baselines
from captum_ablate.inputs.batch import Batch


@dataclass(frozen=True)
class CaptumCall:
    """Call an attribution, whose ``attribute`` ``takes`` these parameters.

    Path methods interpolate the output of ``embedding``, if there is one, from the embedding of ``baseline_ids``.
    """

    takes: Mapping[str, inspect.Parameter]
    embedding: nn.Module | None
    baseline_ids: int | Tensor

    def __call__(self, attribution: Any, batch: Batch, target: Any, kwargs: dict[str, Any]) -> Any:
        """Return what ``attribution`` attributes to the samples of ``batch``, for the outputs ``target``."""
        found, takes = bound(attribution, batch), self.takes
        if self.embedding is not None:
            found, baseline = embedded(found, self.embedding, self.baseline_ids)
            if "baselines" in takes and not needs_baselines(takes):
                kwargs.setdefault("baselines", baseline)
        elif "baselines" in kwargs:
            kwargs["baselines"] = left_of(kwargs["baselines"], found, len(batch.inputs))
        attribute: Callable[..., Any] = found.attribution.attribute

        def attributed(own: Batch, target: Any) -> Any:
            inputs = tuple(_dense(x) if isinstance(x, Tensor) else x for x in own.inputs)
            options = dict(kwargs)
            if "additional_forward_args" in takes and own.additional_forward_args:
                options.setdefault("additional_forward_args", own.additional_forward_args)
            if "target" in takes and target is not None:
                options["target"] = target
            return attribute(inputs[0] if len(inputs) == 1 else inputs, **options)

        if not isinstance(target, Tensor) or kwargs.get("perturbations_per_eval", 1) == 1:
            return attributed(found.batch, target)
        result: Tensor | None = None
        for c in torch.unique(target).tolist():  # Captum repeats inputs, not targets, for several perturbations
            rows = (target == c).nonzero().flatten()
            part = attributed(found.batch.take(rows), c)
            result = part.new_zeros(len(target), *part.shape[1:]) if result is None else result
            result[rows] = part.detach()
        return result


def _dense(tensor: Tensor) -> Tensor:
    """Return a copy for Captum, which interpolates and repeats dense inputs alone."""
    tensor = tensor.detach().clone()
    return tensor if tensor.layout is torch.strided else tensor.to_dense()
