"""Diagnose the code of a layer: spectra, trajectories, mid-range logits, retraining of the last layer, capacity."""

from captum_ablate.diagnostics.activation_spectrum import activation_spectrum
from captum_ablate.diagnostics.capacity import CapacityBounds, dropout_capacity_bounds
from captum_ablate.diagnostics.heterogeneity import Heterogeneity, exponents_differ
from captum_ablate.diagnostics.level_slices import LevelSlices, level_slices
from captum_ablate.diagnostics.midrange import Curation, MidRange, curate_midrange, midrange
from captum_ablate.diagnostics.power_law import participation_ratio
from captum_ablate.diagnostics.projection import RandomProjections, dot_on_circle, random_projection_test
from captum_ablate.diagnostics.retraining import HeadTable, head_table, retrain_last_layer
from captum_ablate.diagnostics.spectrum import ActivationSpectrum
from captum_ablate.diagnostics.worst_group import WorstGroupAccuracy, worst_group_accuracy

__all__ = [
    "ActivationSpectrum",
    "CapacityBounds",
    "Curation",
    "HeadTable",
    "Heterogeneity",
    "LevelSlices",
    "MidRange",
    "RandomProjections",
    "WorstGroupAccuracy",
    "activation_spectrum",
    "curate_midrange",
    "dot_on_circle",
    "dropout_capacity_bounds",
    "exponents_differ",
    "head_table",
    "level_slices",
    "midrange",
    "participation_ratio",
    "random_projection_test",
    "retrain_last_layer",
    "worst_group_accuracy",
]
