"""Cost of a unit's ablation to first order: activation times the gradient of the loss."""

from __future__ import annotations

from torch import Tensor

from captum_ablate.attr.base import LayerDatasetAttribution
from captum_ablate.statistics.moments import ClassMoments


class LayerTaylor(LayerDatasetAttribution):
    r"""First-order Taylor estimate of how much ablating a unit to zero changes the loss:

    .. math:: s_u = \frac1n \sum_i \Big| \sum_p a_{iup} \frac{\partial L_i}{\partial a_{iup}} \Big|

    :math:`L_i` is the cross entropy of sample i's label, p are positions. The inner sum is the gradient with respect
    to a gate on the unit, the form of Molchanov et al. (2019, arXiv 1906.10771), who square it. The absolute value of
    each sample, averaged, is that of Molchanov et al. (2017, arXiv 1611.06440), who divide by the number of positions
    and scale each layer to norm 1. ``per_class`` returns the mean over the samples of each class, ``[classes, units]``.
    A group of ``layer_mask`` has one gate.

    Example:
        >>> import torch
        >>> from captum_ablate import LayerTaylor
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 2, bias=False)).eval()
        >>> model[1].weight.data = torch.eye(2)
        >>> x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, 2.0]])
        >>> LayerTaylor(model, "0").attribute(x, target=[0, 0, 1, 1]).round(decimals=3).tolist()
        [0.182, 0.206]
    """

    source = "gradients"
    needs_two_classes = False

    def score(self, products: ClassMoments) -> Tensor:
        return products.absolute_mean

    def score_per_class(self, products: ClassMoments) -> Tensor:
        return products.absolute_means
