"""The code of a layer, beside its deficit curve: spectra and mid-range activations."""

from captum_ablate.diagnostics.capacity import CapacityBounds, dropout_capacity_bounds
from captum_ablate.diagnostics.curation import Curation, curate_midrange
from captum_ablate.diagnostics.head import HeadTable, head_table
from captum_ablate.diagnostics.heterogeneity import Heterogeneity, exponents_differ
from captum_ablate.diagnostics.level_slices import LevelSlices, level_slices
from captum_ablate.diagnostics.midrange import MidRange, midrange
from captum_ablate.diagnostics.power_law import participation_ratio
from captum_ablate.diagnostics.projection import RandomProjections, random_projection_test
from captum_ablate.diagnostics.retraining import retrain_last_layer
from captum_ablate.diagnostics.spectrum import activation_spectrum
from captum_ablate.diagnostics.spectrum_result import ActivationSpectrum
from captum_ablate.diagnostics.stimuli import dot_on_circle
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
