"""Norm of the weights of a unit, alone and times its activations: the signals of the pruning literature."""

from __future__ import annotations

from itertools import islice

from torch import Tensor

from captum_ablate.attr.base import LayerDatasetAttribution
from captum_ablate.inputs.batches import Batches
from captum_ablate.statistics.collect import LayerStatistics, collect
from captum_ablate.statistics.moments import ClassMoments
from captum_ablate.statistics.requests import MomentsRequest, WeightNormsRequest
from captum_ablate.statistics.weight_norms import WeightNorms


class LayerWeightNorm(LayerDatasetAttribution):
    r"""L2 norm of the weights that a unit goes into: :math:`\sqrt{\sum_k w_{ku}^2}`.

    The weights are those of every Linear and Conv module (also transposed, and ``F.linear`` or a product with a matrix
    parameter) that the unit reaches without passing through another one. They are all entries that multiply the unit:
    the column of a Linear, all columns of a channel that is flattened before it, the kernels of an input channel in
    its own group of a convolution. Several such modules, as beside a skip connection, count together; weights used
    twice count once; biases do not count. Weights are taken as they are stored, so a batch norm between is not folded
    in. Units of the last layer have the norm of the weights that make them, the row of their own module.

    The first batch tells where units go; its values and labels do not matter. Norms as a criterion are those of
    Li et al. (2017, arXiv 1608.08710), there the L1 norm of the incoming weights.

    Raises:
        ValueError: if units are mixed before they meet weights (by a layer norm or attention), so that no weight is
            of one unit alone, or if there are no weights after the layer or before it.

    Example:
        >>> import torch
        >>> from captum_ablate import LayerWeightNorm
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 2, bias=False)).eval()
        >>> model[1].weight.data = torch.tensor([[3.0, 1.0], [4.0, 0.0]])
        >>> LayerWeightNorm(model, "0").attribute(torch.rand(4, 2), target=[0, 0, 1, 1]).tolist()
        [5.0, 1.0]
    """

    requests = (WeightNormsRequest(),)
    needs_two_classes = False

    def score(self, norms: WeightNorms) -> Tensor:
        return norms.values

    def _collect(self, batches: Batches, *, at_input: bool, show_progress: bool) -> list[LayerStatistics]:
        return collect(self.forward_func, self.layer_requests(), islice(batches, 1), at_input=at_input)


class LayerActivationNorm(LayerDatasetAttribution):
    r"""L2 norm of a unit's activations times that of its weights: :math:`\sqrt{\sum_{ip} a_{iup}^2} \cdot \|w_u\|_2`.

    The sum is over samples i and positions p, the weights are those of ``LayerWeightNorm``. Wanda (Sun et al. 2023,
    arXiv 2306.11695) scores each weight by :math:`|w_{ku}| \cdot \|a_u\|_2`; this is the L2 norm of these scores over
    the weights of a unit. ``per_class`` sums over the samples of each class, ``[classes, units]``.

    Raises:
        ValueError: as ``LayerWeightNorm``.

    Example:
        >>> import torch
        >>> from captum_ablate import LayerActivationNorm
        >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 2, bias=False)).eval()
        >>> model[1].weight.data = torch.eye(2)
        >>> x = torch.tensor([[3.0, 1.0], [4.0, 1.0], [0.0, 1.0], [0.0, -1.0]])
        >>> LayerActivationNorm(model, "0").attribute(x, target=[0, 0, 1, 1]).round(decimals=3).tolist()
        [5.0, 1.732]
    """

    requests = (MomentsRequest(squared=True), WeightNormsRequest())
    needs_two_classes = False

    def score(self, squares: ClassMoments, norms: WeightNorms) -> Tensor:
        return squares.sums.sum(0).sqrt() * norms.values

    def score_per_class(self, squares: ClassMoments, norms: WeightNorms) -> Tensor:
        return squares.sums.sqrt() * norms.values
