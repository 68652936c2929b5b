"""Metrics of an evaluation: one number a sample from the network's outputs, higher is better."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite

import torch
from torch import Tensor

from captum_ablate.inputs.targets import are_classes
from captum_ablate.inputs.values import refuse_complex

Metric = Callable[[Tensor, Tensor], Tensor]
"""``f(outputs [n, classes], target [n]) -> values [n]``, higher is better."""


def accuracy(outputs: Tensor, target: Tensor) -> Tensor:
    """Return 1 if the largest output is the label's, else 0, ``[n]``; of one logit, if its sign is the label's."""
    outputs = _class_outputs(outputs, target)
    right = (outputs.argmax(dim=1) == target).to(torch.float32)
    return right.masked_fill(outputs.isnan().any(dim=1), torch.nan)


def log_likelihood(outputs: Tensor, target: Tensor) -> Tensor:
    """Return log p of the label under the softmax (of one logit, the sigmoid) of ``outputs``, in nats, ``[n]``."""
    return _of_label(torch.log_softmax(_class_outputs(outputs, target), dim=1), target)


def logit(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the output of the label, ``[n]``; of one logit z it is z for label 1, and -z for label 0."""
    columns = _class_outputs(outputs, target)
    if is_one_logit(outputs, len(target)):
        columns = torch.stack([-columns[:, 1], columns[:, 1]], dim=1)
    return _of_label(columns, target)


def margin(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the output of the label minus the largest other one, ``[n]``; of one logit, what ``logit`` is."""
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
    """Raise if one of our metrics needs a label that the model has no output for, or the targets are no classes."""
    if not is_named(metric):
        return
    if not are_classes(target):
        raise ValueError(
            f"the metric {metric_name(metric)!r} needs one integer class per sample, [n]; got {target.dtype} "
            f"{tuple(target.shape)}. Pass metric=f with f(outputs, target) -> [n], which takes any target"
        )
    if not isinstance(outputs, Tensor):
        return
    if is_one_logit(outputs, len(target)):
        check_binary(target)
    elif outputs.ndim == 2:
        check_indices(target, outputs.shape[1])


def check_indices(target: Tensor, outputs: int) -> None:
    """Raise unless each label is the index of one of the model's ``outputs``: a GPU would break off the process."""
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= outputs:
        raise ValueError(
            f"labels must be 0..{outputs - 1}, the indices of the model's {outputs} outputs; "
            f"got {low if low < 0 else high}"
        )


def is_one_logit(outputs: object, n: int) -> bool:
    """Tell whether outputs are one logit for each of n samples, ``[n]`` or ``[n, 1]``: the model is binary."""
    return isinstance(outputs, Tensor) and tuple(outputs.shape) in ((n,), (n, 1))


def check_binary(target: Tensor) -> None:
    """Raise unless the labels are those of a model with one logit, 0 and 1."""
    wrong = target[(target != 0) & (target != 1)]
    if len(wrong):
        raise ValueError(f"labels must be 0 or 1, because the model returns one logit per sample; got {int(wrong[0])}")


def columns_of(outputs: Tensor, n: int) -> Tensor:
    """Return ``outputs [n, classes]``; one logit z is the two columns 0 and z, whose softmax is its sigmoid."""
    if not is_one_logit(outputs, n):
        return outputs
    z = outputs.reshape(-1)
    return torch.stack([torch.zeros_like(z), z], dim=1)


def class_outputs(outputs: object) -> object:
    """Return ``outputs.logits`` if it exists (Hugging Face), else ``outputs``."""
    logits = getattr(outputs, "logits", None)
    return outputs if logits is None else logits


def _class_outputs(outputs: Tensor, target: Tensor) -> Tensor:
    columns = columns_of(outputs, len(target))
    if not isinstance(columns, Tensor) or columns.ndim != 2 or len(columns) != len(target):
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"this metric needs model outputs [n, classes] with n = {len(target)}, or one logit, [n]; got {got}. "
            "Pass metric=f with f(outputs, target) -> [n], or a forward_func that returns the class outputs."
        )
    refuse_complex(columns, "the model's outputs, for this metric,")
    return columns if columns.dtype == torch.float64 else columns.to(torch.float32)


def _of_label(outputs: Tensor, target: Tensor) -> Tensor:
    return outputs.gather(1, target[:, None]).squeeze(1)
