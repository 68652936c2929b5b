"""Metrics of an evaluation: one number a sample from the network's outputs, higher is better."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

import torch
from torch import Tensor

Metric = Callable[[Tensor, Tensor], Tensor]
"""``f(outputs [n, classes], target [n]) -> values [n]``, higher is better."""


def accuracy(outputs: Tensor, target: Tensor) -> Tensor:
    """Return 1 if the largest output is the label's, else 0, ``[n]``."""
    outputs = _class_outputs(outputs, target)
    right = (outputs.argmax(dim=1) == target).to(torch.float32)
    return right.masked_fill(outputs.isnan().any(dim=1), torch.nan)


def log_likelihood(outputs: Tensor, target: Tensor) -> Tensor:
    """Return log p of the label under the softmax of ``outputs``, in nats, ``[n]``."""
    return _of_label(torch.log_softmax(_class_outputs(outputs, target), dim=1), target)


def logit(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the output of the label, ``[n]``."""
    return _of_label(_class_outputs(outputs, target), target)


def margin(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the output of the label minus the largest other one, ``[n]``."""
    outputs = _class_outputs(outputs, target)
    others = outputs.scatter(1, target[:, None], -torch.inf)
    return _of_label(outputs, target) - others.amax(dim=1)


_BY_NAME: dict[str, Metric] = {
    "accuracy": accuracy,
    "log_likelihood": log_likelihood,
    "logit": logit,
    "margin": margin,
}


def as_metric(metric: str | Metric) -> Metric:
    """Return the metric of this name, or the function itself.

    Raises:
        ValueError: if there is no metric of this name.
    """
    if callable(metric):
        return metric
    if metric in _BY_NAME:
        return _BY_NAME[metric]
    raise ValueError(
        f"metric must be one of {', '.join(map(repr, _BY_NAME))}, or a function (outputs, target) -> [n]; "
        f"got {metric!r}"
    )


def bounds_of(metric: str | Metric) -> tuple[float, float] | None:
    """Return the smallest and the largest value of a metric: (0, 1) for accuracy, else what it declares.

    A function declares them as ``f.bounds = (low, high)``. A metric without bounds has None.

    Raises:
        ValueError: if the declared bounds are not two finite numbers, low < high.
    """
    if as_metric(metric) is accuracy:
        return 0.0, 1.0
    declared = getattr(metric, "bounds", None)
    if declared is None:
        return None
    try:
        low, high = (float(end) for end in declared)
    except (TypeError, ValueError) as error:
        raise ValueError(f"bounds of a metric must be two numbers (low, high); got {declared!r}") from error
    if not (isfinite(low) and isfinite(high) and low < high):
        raise ValueError(f"bounds of a metric must be finite and low < high; got {declared!r}")
    return low, high


def is_named(metric: Metric) -> bool:
    """Tell whether a metric is one of ours, which treat every sample alone and write to nothing."""
    return metric in _BY_NAME.values()


def metric_name(metric: str | Metric) -> str:
    """Return the name that results show for ``metric``."""
    return metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)


def check_labels(metric: Metric, outputs: object, target: Tensor) -> None:
    """Raise if one of our metrics needs a label that the model has no output for."""
    if not is_named(metric) or not isinstance(outputs, Tensor) or outputs.ndim != 2:
        return
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= outputs.shape[1]:
        raise ValueError(
            f"labels must be 0..{outputs.shape[1] - 1}, the indices of the model's {outputs.shape[1]} outputs; "
            f"got {low if low < 0 else high}"
        )


def class_outputs(outputs: object) -> object:
    """Return ``outputs.logits`` if it exists (Hugging Face), else ``outputs``."""
    logits = getattr(outputs, "logits", None)
    return outputs if logits is None else logits


def _class_outputs(outputs: Tensor, target: Tensor) -> Tensor:
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(target):
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"this metric needs model outputs [n, classes] with n = {len(target)}; got {got}. "
            "Pass metric=f with f(outputs, target) -> [n], or a forward_func that returns the class outputs."
        )
    if outputs.shape[1] < 2:
        raise ValueError(
            f"this metric needs at least two class outputs; got outputs {tuple(outputs.shape)}. For a network with "
            "one output for two classes pass metric=f with f(outputs, target) -> [n]."
        )
    return outputs if outputs.dtype == torch.float64 else outputs.to(torch.float32)


def _of_label(outputs: Tensor, target: Tensor) -> Tensor:
    return outputs.gather(1, target[:, None]).squeeze(1)
