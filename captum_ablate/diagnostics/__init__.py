"""The code of a layer, beside its deficit curve: spectra and mid-range activations."""

from captum_ablate.diagnostics.capacity import CapacityBounds, dropout_capacity_bounds
from captum_ablate.diagnostics.heterogeneity import Heterogeneity, exponents_differ
from captum_ablate.diagnostics.power_law import participation_ratio
from captum_ablate.diagnostics.projection import RandomProjections, dot_on_circle, random_projection_test
from captum_ablate.diagnostics.spectrum import ActivationSpectrum, activation_spectrum

__all__ = [
    "ActivationSpectrum",
    "CapacityBounds",
    "Heterogeneity",
    "RandomProjections",
    "activation_spectrum",
    "dot_on_circle",
    "dropout_capacity_bounds",
    "exponents_differ",
    "participation_ratio",
    "random_projection_test",
]
