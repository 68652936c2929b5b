"""Choose the output that is attributed for each sample; of a model with one logit, the side of the sample's class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_ablate.ablation.metrics import check_binary, check_indices, is_one_logit
from captum_ablate.attr.inner import made_of
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.calling import call
from captum_ablate.inputs.model import ForwardFunc
from captum_ablate.inputs.targets import classes_of


class Targets:
    """Captum's target for each batch, by the ``target`` of ``unit_scores``; ``name`` is the attribution's.

    The first batch tells whether the model has one logit.
    """

    def __init__(self, target: str | int | None, forward_func: ForwardFunc, name: str, *, takes_target: bool) -> None:
        if isinstance(target, str) and target not in ("label", "prediction"):
            raise ValueError(f'target must be "label", "prediction", an output index or None; got {target!r}')
        self.target, self.forward_func, self.name, self.takes_target = target, forward_func, name, takes_target
        self._one_logit: bool | None = None
        self._columns: int | None = None

    def of(self, batch: Batch) -> tuple[Any, Tensor | None]:
        """Return Captum's target, and for a model with one logit the sign of each sample's side, ``[n]``."""
        if not self.takes_target or self.target not in ("label", "prediction"):
            return self.target if self.takes_target else None, None
        is_label = self.target == "label"
        if is_label:
            batch = batch._replace(target=self._labels(batch.target))
        if self._one_logit is not None and is_label and not self._one_logit:
            self._check_indices(batch.target)
            return batch.target, None
        outputs, n = self._outputs(batch, few=is_label)
        self._one_logit = is_one_logit(outputs, n)
        if not self._one_logit:
            if is_label:
                self._columns = outputs.shape[1] if isinstance(outputs, Tensor) and outputs.ndim == 2 else None
                self._check_indices(batch.target)
            return (batch.target if is_label else outputs.argmax(dim=1)), None
        labels = batch.target if is_label else (outputs.reshape(-1) > 0).to(torch.int64)
        check_binary(labels)
        return (0 if outputs.ndim == 2 else None), 2 * labels - 1

    def _outputs(self, batch: Batch, few: bool) -> tuple[Any, int]:
        """Return the model's outputs for the batch, or if ``few`` for some of it that it takes, and their number."""
        with torch.no_grad():
            if few:
                try:
                    return call(self.forward_func, batch.take(slice(2))), min(2, len(batch.target))
                except Exception:  # a model made for one size of batch, or that needs all its samples, such as a graph
                    pass
            return call(self.forward_func, batch), len(batch.target)

    def _check_indices(self, labels: Tensor) -> None:
        if self._columns is not None:
            check_indices(labels, self._columns)

    def _labels(self, target: Tensor) -> Tensor:
        labels = classes_of(target)
        if labels is None:
            raise ValueError(
                f"{self.name} attributes one output per sample, and the targets {target.dtype} {tuple(target.shape)} "
                "are no classes; say which output: functools.partial(unit_scores, "
                f"{made_of(self.name)}, target=0), an index for all samples, or None for a model with one output"
            )
        return labels
