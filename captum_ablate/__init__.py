"""Unit scores over a labelled data set, and deficit curves for any Captum attribution."""

import sys

from captum_ablate.attr import (
    LayerActivationNorm,
    LayerClassSelectivity,
    LayerDatasetAttribution,
    LayerEntropy,
    LayerKLSelectivity,
    LayerLinearProbe,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerSelectivityActivity,
    LayerShapleyValue,
    LayerTaylor,
    LayerUnitAblation,
    LayerWeightNorm,
    attribute_together,
)
from captum_ablate.attr.per_sample import unit_scores
from captum_ablate.diagnostics import (
    ActivationSpectrum,
    CapacityBounds,
    RandomProjections,
    activation_spectrum,
    curate_midrange,
    dot_on_circle,
    dropout_capacity_bounds,
    exponents_differ,
    head_table,
    level_slices,
    midrange,
    participation_ratio,
    random_projection_test,
    retrain_last_layer,
    worst_group_accuracy,
)
from captum_ablate.evaluation.combined import Combined, combine
from captum_ablate.evaluation.comparison import Comparison
from captum_ablate.evaluation.curve import DeficitCurve
from captum_ablate.evaluation.evaluator import CumulativeAblationEvaluator
from captum_ablate.inputs import samples as demo_data
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.layer_table import list_layers
from captum_ablate.studies import (
    AblationGrid,
    class_deficits,
    class_planes,
    completeness_delta,
    deficit_correlation,
    division_of_labour,
    feature_selection,
    interaction_regression,
    rank_agreement,
    units_to_flip,
)

__all__ = [
    "AblationGrid",
    "ActivationSpectrum",
    "Batch",
    "CapacityBounds",
    "Combined",
    "Comparison",
    "CumulativeAblationEvaluator",
    "DeficitCurve",
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
    "RandomProjections",
    "activation_spectrum",
    "attribute_together",
    "class_deficits",
    "class_planes",
    "combine",
    "completeness_delta",
    "curate_midrange",
    "deficit_correlation",
    "demo_data",
    "division_of_labour",
    "dot_on_circle",
    "dropout_capacity_bounds",
    "exponents_differ",
    "feature_selection",
    "head_table",
    "interaction_regression",
    "level_slices",
    "list_layers",
    "midrange",
    "participation_ratio",
    "random_projection_test",
    "rank_agreement",
    "retrain_last_layer",
    "unit_scores",
    "units_to_flip",
    "worst_group_accuracy",
]
__version__ = "0.1.0"
sys.modules[f"{__name__}.demo_data"] = demo_data  # so that ``import captum_ablate.demo_data`` works too
