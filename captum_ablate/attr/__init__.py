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

__all__ = [
    "LayerActivationNorm",
    "LayerClassSelectivity",
    "LayerDatasetAttribution",
    "LayerEntropy",
    "LayerKLSelectivity",
    "LayerLinearProbe",
    "LayerMeanActivity",
    "LayerMutualInformation",
    "LayerSelectivityActivity",
    "LayerShapleyValue",
    "LayerTaylor",
    "LayerUnitAblation",
    "LayerWeightNorm",
    "attribute_together",
]
