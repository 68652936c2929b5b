"""Mean activity of a unit, whatever the class."""

from __future__ import annotations

from torch import Tensor

from captum_ablate.attr.base import LayerDatasetAttribution
from captum_ablate.statistics.moments import ClassMoments


class LayerMeanActivity(LayerDatasetAttribution):
    r"""Mean activation of each unit over the samples: :math:`m_u = \frac1n \sum_i a_{iu}`.

    ``per_class`` returns the class means :math:`\mu_{cu}`, ``[classes, units]``. Hayne et al. (2022, arXiv 2211.04367)
    ablate groups of units in the plane of selectivity and mean activity, as far as their abstract tells.

    Example:
        >>> import torch
        >>> from captum_ablate import LayerMeanActivity
        >>> model = torch.nn.Sequential(torch.nn.ReLU())
        >>> x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, -1.0]])
        >>> LayerMeanActivity(model, "0").attribute(x, target=[0, 0, 1, 1]).tolist()
        [1.5, 0.75]
    """

    needs_two_classes = False

    def score(self, moments: ClassMoments) -> Tensor:
        return moments.mean

    def score_per_class(self, moments: ClassMoments) -> Tensor:
        return moments.means
