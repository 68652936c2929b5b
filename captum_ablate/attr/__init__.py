"""Layer attributions over a labelled data set, a companion of ``captum.attr``."""

from captum_ablate.attr.activity import LayerMeanActivity
from captum_ablate.attr.base import LayerDatasetAttribution
from captum_ablate.attr.information import LayerEntropy, LayerKLSelectivity, LayerMutualInformation
from captum_ablate.attr.probe import LayerLinearProbe
from captum_ablate.attr.selectivity import LayerClassSelectivity, LayerSelectivityActivity
from captum_ablate.attr.shapley import LayerShapleyValue
from captum_ablate.attr.taylor import LayerTaylor
from captum_ablate.attr.together import attribute_together
from captum_ablate.attr.unit_ablation import LayerUnitAblation
from captum_ablate.attr.weight_norm import LayerActivationNorm, LayerWeightNorm

__all__ = [  # noqa: RUF022  in the order of reading, from the simplest to the costliest
    "LayerDatasetAttribution",
    "LayerMeanActivity",
    "LayerClassSelectivity",
    "LayerSelectivityActivity",
    "LayerEntropy",
    "LayerMutualInformation",
    "LayerKLSelectivity",
    "LayerLinearProbe",
    "LayerWeightNorm",
    "LayerActivationNorm",
    "LayerTaylor",
    "LayerUnitAblation",
    "LayerShapleyValue",
    "attribute_together",
]
