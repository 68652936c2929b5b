"""How active a unit is, whatever the class."""

from __future__ import annotations

from torch import Tensor

from captum_ablate.attr.base import LayerDatasetAttribution
from captum_ablate.statistics.moments import ClassMoments


class LayerMeanActivity(LayerDatasetAttribution):
    r"""Mean activation of each unit over the data: :math:`m_u = \frac1N \sum_i a_{iu}`.

    ``per_class`` gives the class means :math:`\mu_{cu}`. Second axis of the plane in which Hayne et al. (2022,
    arXiv 2211.04367) ablate groups of units, as far as its abstract tells.
    """

    def score(self, moments: ClassMoments) -> Tensor:
        return moments.mean

    def score_per_class(self, moments: ClassMoments) -> Tensor:
        return moments.means
