"""Class selectivity of a unit, alone and times its activity."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from captum_ablate.attr.base import LayerDatasetAttribution, SelectivityFactory
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.statistics.moments import ClassMoments
from captum_ablate.statistics.requests import MomentsRequest, Request, Statistic


class LayerClassSelectivity(LayerDatasetAttribution):
    r"""Class selectivity index (Morcos et al. 2018, arXiv 1803.06959), between 0 and 1 for activations >= 0:

    .. math:: SI_u = \frac{\mu_{max} - \mu_{rest}}{|\mu_{max}| + |\mu_{rest}| + \varepsilon}

    :math:`\mu_{max}` is the largest class mean, :math:`\mu_{rest}` the mean of the other class means: every class
    counts the same. The absolute values are ours; they keep the sign of the numerator for negative activations. A dead
    unit scores 0. ``per_class`` puts each class in the place of the best one, ``[classes, units]`` in -1 .. 1.

    Args:
        eps: :math:`\varepsilon`, in units of the activation. Without it the scale of a unit does not matter; the
            paper's small constant shrinks the index of units whose activity is as small.

    Example:
        >>> import torch
        >>> from captum_ablate import LayerClassSelectivity
        >>> model = torch.nn.Sequential(torch.nn.ReLU())
        >>> x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, -1.0]])
        >>> LayerClassSelectivity(model, "0").attribute(x, target=[0, 0, 1, 1]).tolist()
        [1.0, 0.3333333333333333]
    """

    eps: float = 0.0

    def score(self, moments: ClassMoments) -> Tensor:
        best = self.score_per_class(moments).gather(0, moments.means.argmax(dim=0)[None]).squeeze(0)
        return best.clamp(min=0)  # of equal means, the rest's may be above the best one's by rounding

    def score_per_class(self, moments: ClassMoments) -> Tensor:
        means = moments.means  # [classes, units]
        classes = len(means)
        others = torch.stack([torch.cat([means[:c], means[c + 1 :]]).mean(dim=0) for c in range(classes)])
        size = means.abs() + others.abs() + self.eps
        return torch.where(size > 0, (means - others) / size, 0.0)


class LayerSelectivityActivity(LayerDatasetAttribution):
    r"""Selectivity times mean absolute activity: :math:`SI_u \cdot \frac1n \sum_i |a_{iu}|`.

    By the abstract of Hayne et al. (2022, arXiv 2211.04367) the interaction of the two predicts ablation deficits
    better than selectivity. The product is our reading. Since
    :math:`SI_u (\mu_{max} + \mu_{rest}) = \mu_{max} - \mu_{rest}`, it behaves like a difference of class means.
    ``per_class`` multiplies :math:`SI_{cu}` by the mean absolute activity in class c; negative products become 0.

    Args:
        selectivity: a function ``(forward_func, layer) -> attribution`` whose score takes the place of the index, such
            as ``LayerMutualInformation`` or a ``functools.partial`` of it. It must be a statistic of the activations.

    Raises:
        TypeError: if ``selectivity`` returns no attribution over a data set.
        ValueError: if that attribution ablates, or has another ``unit_dim`` or ``layer_mask``.

    Example:
        >>> import torch
        >>> from captum_ablate import LayerSelectivityActivity
        >>> model = torch.nn.Sequential(torch.nn.ReLU())
        >>> x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, -1.0]])
        >>> LayerSelectivityActivity(model, "0").attribute(x, target=[0, 0, 1, 1]).round(decimals=3).tolist()
        [1.5, 0.25]
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
                f"selectivity must be a statistic of the activations; {type(self.factor).__name__} makes passes of its "
                "own: attribute with it and with LayerMeanActivity, and multiply the two scores"
            )
        if self.factor.axis not in (UnitAxis(), self.axis):
            raise ValueError(
                "the selectivity has another unit_dim or layer_mask than the product; pass both the same, or none to it"
            )
        self.factor.axis = self.axis

    @property
    def needs_two_classes(self) -> bool:  # type: ignore[override]  # as the factor does
        return self.factor.needs_two_classes

    @property
    def requests(self) -> tuple[Request, ...]:  # type: ignore[override]  # those of both factors
        return (MomentsRequest(), *self.factor.requests)

    def held(self, moments: ClassMoments, *selectivity: Statistic) -> LayerSelectivityActivity:
        """Return the product with what its factor chooses by the data held."""
        fixed = copy(self)
        fixed.factor = self.factor.held(*selectivity)
        return fixed

    def score(self, moments: ClassMoments, *selectivity: Statistic) -> Tensor:
        return self.factor.score(*selectivity) * moments.absolute_mean

    def score_per_class(self, moments: ClassMoments, *selectivity: Statistic) -> Tensor:
        return (self.factor.score_per_class(*selectivity) * moments.absolute_means).clamp(min=0)
