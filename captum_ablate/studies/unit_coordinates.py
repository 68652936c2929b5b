"""Coordinates of units in the plane: class selectivity and mean activity, over all classes and for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from captum_ablate.attr import LayerClassSelectivity, LayerMeanActivity
from captum_ablate.evaluation.evaluator import CumulativeAblationEvaluator
from captum_ablate.inputs.batches import UnpackBatch, as_batches
from captum_ablate.inputs.borrowed import borrowed
from captum_ablate.inputs.progress import with_progress
from captum_ablate.inputs.targets import check_classes
from captum_ablate.inputs.warnings import warn
from captum_ablate.statistics.collect import LayerRequest, collect
from captum_ablate.statistics.moments import ClassMoments
from captum_ablate.statistics.requests import MomentsRequest


@dataclass(frozen=True, eq=False)
class UnitCoordinates:
    """``selectivity [units]`` and ``activity [units]`` of a layer, and the same per class, ``[classes, units]``."""

    classes: Tensor
    selectivity: Tensor
    activity: Tensor
    selectivity_per_class: Tensor
    activity_per_class: Tensor

    @classmethod
    def of(
        cls,
        evaluator: CumulativeAblationEvaluator,
        ranking_data: Any,
        *,
        batch_size: int | None = None,
        unpack_batch: UnpackBatch | None = None,
        show_progress: bool = False,
    ) -> UnitCoordinates:
        """Compute the coordinates of the evaluator's units in one pass over ``ranking_data``.

        Warns where a unit has a negative mean activity in some class.

        Raises:
            ValueError: if the evaluator has several layers, or the data hold one class only.
        """
        forward_func, layer = evaluator.forward_func, one_layer(evaluator)
        batches = as_batches(ranking_data, forward_func=forward_func, batch_size=batch_size, unpack_batch=unpack_batch)
        shown = with_progress(batches, "activity by class", show_progress)
        with borrowed(forward_func, layer, batches.owner):
            request = LayerRequest(layer, evaluator.axes[0], (MomentsRequest(),))
            at_input = evaluator.attribute_to_layer_input
            (found,) = collect(forward_func, [request], shown, at_input=at_input, element=0)  # what is ablated
        ((moments,),) = found.statistics
        assert isinstance(moments, ClassMoments)
        check_classes(moments.classes)
        _warn_of_negative(moments)
        selectivity, activity = LayerClassSelectivity(forward_func, layer), LayerMeanActivity(forward_func, layer)
        return cls(
            classes=moments.classes,
            selectivity=selectivity.score(moments),
            activity=activity.score(moments),
            selectivity_per_class=selectivity.score_per_class(moments),
            activity_per_class=activity.score_per_class(moments),
        )

    def alive(self, values: Tensor) -> Tensor:
        """Return ``values [units]`` with NaN for dead units, whose mean is 0 in every class."""
        return values.masked_fill((self.activity_per_class == 0).all(dim=0), torch.nan)


def one_layer(evaluator: CumulativeAblationEvaluator) -> nn.Module:
    """Return the evaluator's layer.

    Raises:
        ValueError: if it has several.
    """
    if len(evaluator.layers) > 1:
        raise ValueError(
            f"a plane holds the units of one layer, and the evaluator has {len(evaluator.layers)}: activities of two "
            "layers have no common unit; make an evaluator for each"
        )
    return evaluator.layers[0]


def _warn_of_negative(moments: ClassMoments) -> None:
    negative = (moments.means < 0).any(dim=0)
    if bool(negative.any()):
        warn(
            f"{int(negative.sum())} units have a negative mean activity in some class; selectivity is meant for "
            "outputs >= 0: name the layer after the activation function"
        )
