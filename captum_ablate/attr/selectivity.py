"""Class selectivity of a unit, alone and times its activity."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_ablate.attr.base import LayerDatasetAttribution, SelectivityFactory
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.moments import ClassMoments
from captum_ablate.statistics.requests import MomentsRequest, Request, Statistic


class LayerClassSelectivity(LayerDatasetAttribution):
    r"""Class selectivity index (Morcos et al. 2018, arXiv 1803.06959), between 0 and 1 for activations >= 0:

    .. math:: SI_u = \frac{\mu_{max} - \mu_{rest}}{|\mu_{max}| + |\mu_{rest}| + \varepsilon}

    with :math:`\mu_{max}` the largest class mean and :math:`\mu_{rest}` the mean of the other class means, so that
    every class counts the same. The absolute values, ours, keep the sign of the numerator where activations are
    negative; a dead unit scores 0. ``per_class`` puts each class in the place of the best one: ``[classes, units]``
    between -1 and 1.
    """

    eps: float = 1e-7

    def score(self, moments: ClassMoments) -> Tensor:
        return self.score_per_class(moments).gather(0, moments.means.argmax(dim=0)[None]).squeeze(0)

    def score_per_class(self, moments: ClassMoments) -> Tensor:
        means = moments.means  # [classes, units]
        classes = len(means)
        others = torch.stack([torch.cat([means[:c], means[c + 1 :]]).mean(dim=0) for c in range(classes)])
        return (means - others) / (means.abs() + others.abs() + self.eps)


class LayerSelectivityActivity(LayerDatasetAttribution):
    r"""Selectivity times mean absolute activity: :math:`SI_u \cdot \frac1N \sum_i |a_{iu}|`.

    The interaction that, by the abstract of Hayne et al. (2022, arXiv 2211.04367), predicts ablation deficits better
    than selectivity; the product is our reading. For activations >= 0 the second factor is the mean activity, and
    since :math:`SI_u (\mu_{max} + \mu_{rest}) = \mu_{max} - \mu_{rest}` the product behaves like a difference of means.
    ``per_class``: :math:`SI_{cu}` times the mean absolute activity in class c, negative products set to 0.

    ``selectivity`` is a function ``(forward_func, layer) -> attribution`` such as ``LayerMutualInformation``, or one
    made with ``functools.partial``; its score takes the place of the selectivity index.
    """

    selectivity: SelectivityFactory = LayerClassSelectivity

    def __post_init__(self) -> None:
        self.factor = self.selectivity(self.forward_func, self.layer)
        if not isinstance(self.factor, LayerDatasetAttribution):
            raise TypeError(
                "selectivity must be a function (forward_func, layer) -> an attribution over a data set, such as "
                f"LayerClassSelectivity; it returned {type(self.factor).__name__}"
            )
        if self.factor.source != "activations":
            raise ValueError(
                f"selectivity must be a statistic of the activations; {type(self.factor).__name__} ablates units in "
                "passes of its own: attribute with it and with LayerMeanActivity, and multiply the two scores"
            )
        if self.factor.axis not in (UnitAxis(), self.axis):
            raise ValueError(
                "the selectivity has another unit_dim or layer_mask than the product; pass both the same, or none to it"
            )
        self.factor.axis = self.axis

    @property
    def requests(self) -> tuple[Request, ...]:  # type: ignore[override]  # those of both factors
        return (MomentsRequest(), *self.factor.requests)

    def score(self, moments: ClassMoments, *selectivity: Statistic) -> Tensor:
        return self.factor.score(*selectivity) * moments.absolute_mean

    def score_per_class(self, moments: ClassMoments, *selectivity: Statistic) -> Tensor:
        return (self.factor.score_per_class(*selectivity) * moments.absolute_means).clamp(min=0)
