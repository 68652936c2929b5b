"""The engine: a network's metric under many ablations. What comes before the layer runs once."""

from captum_ablate.ablation.engine import BatchOutputs, Engine, Measured
from captum_ablate.ablation.hooked import Probe
from captum_ablate.ablation.live import LiveUnits
from captum_ablate.ablation.locate import Located, locate
from captum_ablate.ablation.plan import Chain, Plan
from captum_ablate.ablation.reference import (
    Reference,
    ReferenceFit,
    ReferenceOption,
    fit_of,
    is_same_reference,
    learn,
    plain_reference,
    reference_name,
)
from captum_ablate.ablation.site import Site

__all__ = [
    "BatchOutputs",
    "Chain",
    "Engine",
    "LiveUnits",
    "Located",
    "Measured",
    "Plan",
    "Probe",
    "Reference",
    "ReferenceFit",
    "ReferenceOption",
    "Site",
    "fit_of",
    "is_same_reference",
    "learn",
    "locate",
    "plain_reference",
    "reference_name",
]
