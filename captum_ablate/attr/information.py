"""Entropy, mutual information and KL selectivity of a quantised unit T with the class Y, in bits.

Amjad, Liu and Geiger (IEEE TNNLS 2022, arXiv 1804.06679) name the three quantities. The formulas are their natural
form; plug-in estimates and the quantiser are ours. For every unit I(T;Y) <= H(T) and
I(T;Y) <= KL <= log2(1 / min P(c)).
"""

from __future__ import annotations

from torch import Tensor

from captum_ablate.attr.base import LayerDatasetAttribution
from captum_ablate.inputs.warnings import warn
from captum_ablate.statistics.chance import expected_specific_information
from captum_ablate.statistics.histogram import ClassHistogram
from captum_ablate.statistics.quantiser import Quantiser
from captum_ablate.statistics.requests import HistogramRequest, Request

EMPTY_BITS = 0.01
"""A unit with less entropy than this, in bits, tells nothing under its quantiser."""


class _QuantisedAttribution(LayerDatasetAttribution):
    """Score from the histogram of quantised activations; the options are those of ``Quantiser``."""

    threshold: float | Tensor | str | None = None
    bins: int | None = None
    edges: str = "width"

    def __post_init__(self) -> None:
        self.quantiser = Quantiser.of(self.threshold, self.bins, self.edges)

    @property
    def requests(self) -> tuple[Request, ...]:  # type: ignore[override]  # the histogram under our quantiser
        return (HistogramRequest(self.quantiser),)


class LayerEntropy(_QuantisedAttribution):
    r"""Entropy of the quantised unit, :math:`H(T) = -\sum_t P(t) \log_2 P(t)`, in bits.

    Without options, a unit is one bit at 0 if the layer has no positions and its outputs are >= 0: the dense ReLU
    setting of the paper. Any other layer gets 16 bins of equal width.

    Args:
        threshold: makes one bit, ``a > threshold``: a number, one for each unit ``[units]``, or "median".
        bins: number of bins over the pooled activations of the whole layer; instead of ``threshold``.
        edges: bins of equal "width" or equal "mass".

    Raises:
        ValueError: if both ``threshold`` and ``bins`` are given, or one of the options is out of range.

    Example:
        >>> import torch
        >>> from captum_ablate import LayerEntropy
        >>> model = torch.nn.Sequential(torch.nn.ReLU())
        >>> x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, -1.0]])
        >>> LayerEntropy(model, "0").attribute(x, target=[0, 0, 1, 1]).round(decimals=3).tolist()
        [1.0, 0.811]
    """

    needs_two_classes = False

    def score(self, histogram: ClassHistogram) -> Tensor:
        return histogram.entropy


class _ClassInformation(_QuantisedAttribution):
    """Score from the information of a unit about each class, ``[classes, units]``, corrected for chance if asked."""

    bias_correction: bool = False

    def score_per_class(self, histogram: ClassHistogram) -> Tensor:
        return _specific_information(histogram, self.bias_correction)


class LayerMutualInformation(_ClassInformation):
    r"""Mutual information of the quantised unit and the class, in bits:

    .. math:: I(T;Y) = \sum_c P(c) D(P(T|c) \| P(T)), \quad D(p \| q) = \sum_t p(t) \log_2 \frac{p(t)}{q(t)}

    ``per_class`` returns the specific information :math:`D(P(T|c) \| P(T))`, ``[classes, units]``; its mean under P(c)
    is I. Warns if most units have hardly any entropy, and where a corrected estimate has more cells than samples.

    Args:
        threshold: as in ``LayerEntropy``, like ``bins`` and ``edges``.
        bias_correction: subtracts what labels in a random order would share with the unit: the expectation over all
            permutations, exactly (Vinh, Epps and Bailey, JMLR 2010). A unit that tells nothing scores 0 on average.

    Example:
        >>> import torch
        >>> from captum_ablate import LayerMutualInformation
        >>> model = torch.nn.Sequential(torch.nn.ReLU())
        >>> x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, -1.0]])
        >>> LayerMutualInformation(model, "0").attribute(x, target=[0, 0, 1, 1]).round(decimals=3).tolist()
        [1.0, 0.311]
    """

    def score(self, histogram: ClassHistogram) -> Tensor:
        _warn_if_empty(type(self).__name__, histogram.entropy)
        return histogram.p_class @ self.score_per_class(histogram)


class LayerKLSelectivity(_ClassInformation):
    r"""KL selectivity, :math:`\max_c D(P(T|c) \| P(T))`, in bits, at most :math:`\log_2(1 / \min P(c))`.

    The maximum over classes is our reading of the paper's KL class selectivity. ``per_class`` returns the specific
    information of each class, ``[classes, units]``, whose maximum is the score. Warns if most units have hardly any
    entropy. The options are those of ``LayerEntropy``.

    A class of n samples is overestimated by about (bins - 1) / (2 n ln 2) bits, and the maximum finds the rarest ones.

    Args:
        threshold: as in ``LayerEntropy``, like ``bins`` and ``edges``.
        bias_correction: subtracts the expectation of each class under labels in a random order, as in
            ``LayerMutualInformation``. The maximum over many classes of few samples stays above 0 by chance.

    Example:
        >>> import torch
        >>> from captum_ablate import LayerKLSelectivity
        >>> model = torch.nn.Sequential(torch.nn.ReLU())
        >>> x = torch.tensor([[4.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, -1.0]])
        >>> LayerKLSelectivity(model, "0").attribute(x, target=[0, 0, 1, 1]).round(decimals=3).tolist()
        [1.0, 0.415]
    """

    def score(self, histogram: ClassHistogram) -> Tensor:
        _warn_if_empty(type(self).__name__, histogram.entropy)
        return self.score_per_class(histogram).amax(dim=0)


def _specific_information(histogram: ClassHistogram, bias_correction: bool) -> Tensor:
    """Return D(P(T given c) to P(T)), bits, ``[classes, units]``, less what permuted labels would share if asked."""
    if not bias_correction:
        return histogram.specific_information
    cells = int((histogram.counts.sum(0) > 0).sum(-1).max()) * len(histogram.classes)
    n = int(histogram.counts[:, 0].sum())
    if cells > n:
        warn(
            f"units have up to {cells:,} cells (bins that occur x {len(histogram.classes):,} classes) for {n:,} "
            "samples; corrected for chance their information is near 0 on average, but noise: use fewer bins "
            '(threshold="median", or bins=) or more samples'
        )
    return histogram.specific_information - expected_specific_information(histogram)


def _warn_if_empty(name: str, entropy: Tensor) -> None:
    """Warn if most units stand in one bin nearly always: what that does to a ranking, and what tells them apart."""
    empty = int((entropy < EMPTY_BITS).sum())
    if 2 * empty > len(entropy):
        warn(
            f"{name}: {empty} of {len(entropy)} units have an entropy below {EMPTY_BITS} bit under this quantiser, so "
            "their scores are near 0 and their order among themselves says nothing. Units that are not constant are "
            'told apart by threshold="median"; those that are (dead units) by no quantiser'
        )
