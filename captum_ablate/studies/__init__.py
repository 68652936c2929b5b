"""Studies that the ablation papers ask for beyond deficit curves, a file for each question, for any model.

Each study is a function that returns a frozen result; the result has ``to_frame`` and ``plot``.
"""

from captum_ablate.studies.activation_table import activation_table
from captum_ablate.studies.additive_network import AdditiveRedundancy, additive_redundancy
from captum_ablate.studies.balance import bias_balanced
from captum_ablate.studies.completeness import Completeness, completeness_delta, plot_completeness
from captum_ablate.studies.deficit_correlation import (
    DeficitCorrelation,
    deficit_correlation,
    plot_correlations,
    spearman_rows,
    unit_drops,
)
from captum_ablate.studies.division_of_labour import DivisionOfLabour, division_of_labour, labour_of, plot_labour
from captum_ablate.studies.feature_selection import (
    FeatureSelection,
    feature_selection,
    plot_feature_selections,
    resampled_interval,
)
from captum_ablate.studies.group_deficits import GroupDeficits
from captum_ablate.studies.information_plane import InformationPlane, information_plane
from captum_ablate.studies.interaction_regression import InteractionRegression, interaction_regression
from captum_ablate.studies.layer_curves import LayerCurves, gap_share, layer_curves
from captum_ablate.studies.pairwise_synergy import PairwiseSynergy, pairwise_synergy
from captum_ablate.studies.planes import AblationGrid, ClassDeficits, class_deficits, class_planes
from captum_ablate.studies.rank_agreement import RankAgreement, rank_agreement
from captum_ablate.studies.redundancy import Redundancy, redundancy
from captum_ablate.studies.sample_scores import sample_scores
from captum_ablate.studies.tiling import Group
from captum_ablate.studies.units_to_flip import FlipCounts, plot_flips, units_to_flip

__all__ = [
    "AblationGrid",
    "AdditiveRedundancy",
    "ClassDeficits",
    "Completeness",
    "DeficitCorrelation",
    "DivisionOfLabour",
    "FeatureSelection",
    "FlipCounts",
    "Group",
    "GroupDeficits",
    "InformationPlane",
    "InteractionRegression",
    "LayerCurves",
    "PairwiseSynergy",
    "RankAgreement",
    "Redundancy",
    "activation_table",
    "additive_redundancy",
    "bias_balanced",
    "class_deficits",
    "class_planes",
    "completeness_delta",
    "deficit_correlation",
    "division_of_labour",
    "feature_selection",
    "gap_share",
    "information_plane",
    "interaction_regression",
    "labour_of",
    "layer_curves",
    "pairwise_synergy",
    "plot_completeness",
    "plot_correlations",
    "plot_feature_selections",
    "plot_flips",
    "plot_labour",
    "rank_agreement",
    "redundancy",
    "resampled_interval",
    "sample_scores",
    "spearman_rows",
    "unit_drops",
    "units_to_flip",
]
