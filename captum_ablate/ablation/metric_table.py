"""Apply the metric to every sample of a batch under every mask, as the outputs arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from captum_ablate.ablation.checks import TOLERANCE
from captum_ablate.ablation.metrics import Metric, accuracy, check_labels, class_outputs, columns_of, is_named
from captum_ablate.ablation.plan import Plan
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.values import refuse_complex

Outputs = Iterator[tuple[Sequence[int], Any]]
"""The numbers of some masks and their outputs: n rows for the first mask, n for the second, and so on."""


class MetricTable:
    """Apply ``metric`` to the outputs under the masks of ``plan``; keep the outputs of the ``largest`` mask."""

    def __init__(self, metric: Metric, plan: Plan, tick: Callable[[float], object]) -> None:
        self.metric, self.plan, self.tick = metric, plan, tick
        self.largest: Any = None

    def measure(
        self, batch: Batch, intact: Any, outputs: Outputs, exactly: Callable[[int], Any] | None = None
    ) -> Tensor:
        """Return the metric ``[1 + masks, n]``, intact first; ``exactly`` recomputes the masks with near ties."""
        check_labels(self.metric, class_outputs(intact), batch.target)
        first = self._value(intact, batch)
        n, order, values = len(first), [-1], [first[None].clone()]
        close: list[Tensor] = []
        for numbers, found in outputs:
            logits = class_outputs(found)
            if self.plan.largest in numbers:
                self.largest = own_rows(logits, list(numbers).index(self.plan.largest), n, len(numbers))
            order += numbers
            if is_named(self.metric) and isinstance(logits, Tensor):
                whole = batch._replace(target=batch.target.repeat(len(numbers)))
                values.append(self._value(found, whole).reshape(len(numbers), n))
                if exactly is not None and self.sees_ties:
                    close.append(_near_ties(logits, whole.target).reshape(len(numbers), n).any(1))
            else:
                masks = range(len(numbers))
                values += [self._value(own_rows(logits, k, n, len(numbers)), batch)[None].clone() for k in masks]
            self.tick(n * len(numbers) / len(self.plan))
        table = torch.cat(values)[torch.tensor(order).argsort().to(first.device)]  # sorted once, so no mask waits
        if exactly is not None and close:
            for place in torch.cat(close).nonzero().flatten().tolist():
                number = order[1 + place]
                table[1 + number] = self._value(exactly(number), batch)
        return table

    @property
    def sees_ties(self) -> bool:
        """Tell whether rounding may change the metric by much if two classes are close."""
        return self.metric is accuracy

    def has_near_tie(self, outputs: Any, batch: Batch) -> bool:
        """Tell whether rounding may change the metric of ``outputs`` by much."""
        logits = class_outputs(outputs)
        return self.sees_ties and isinstance(logits, Tensor) and bool(_near_ties(logits, batch.target).any())

    def _value(self, outputs: Any, batch: Batch) -> Tensor:
        outputs, target = class_outputs(outputs), batch.target
        with torch.no_grad():
            if not is_named(self.metric):  # pass copies: a metric may write to its arguments
                outputs = tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, outputs)
                target = target.clone()
            value = self.metric(outputs, target)
        if not isinstance(value, Tensor) or value.shape != (len(batch.target),):
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"metric must return one value per sample, [{len(batch.target)}]; got {got}")
        refuse_complex(value, "the metric")
        return value.detach() if value.is_floating_point() else value.detach().float()


def own_rows(outputs: Any, k: int, n: int, masks: int) -> Any:
    """Return the n rows of mask k among those of several masks."""
    return outputs if masks == 1 else tree_map(partial(_cut, slice(k * n, (k + 1) * n)), outputs)


def _cut(some: slice, value: Any) -> Any:
    return value[some] if isinstance(value, Tensor) else value


def _near_ties(outputs: Tensor, target: Tensor) -> Tensor:
    """Tell for each row whether the label and the best other output are so close that rounding may swap them.

    If more than two outputs are all the same number, nothing flows through the network, and nothing is rounded.
    """
    scale = outputs.abs().amax(1) if outputs.ndim == 2 and outputs.shape[1] > 1 else outputs.abs().amax()
    outputs = columns_of(outputs, len(target))
    own = outputs.gather(1, target[:, None]).squeeze(1)
    others = outputs.scatter(1, target[:, None], -torch.inf).amax(1)
    is_close = (own - others).abs() <= TOLERANCE * scale
    return is_close & ((outputs != outputs[:, :1]).any(1) | (outputs.shape[1] <= 2))
