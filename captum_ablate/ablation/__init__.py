"""The engine: the metric of a network under many ablations, without running again what comes before the layer."""

from captum_ablate.ablation.engine import Engine, Measured, Opened
from captum_ablate.ablation.hook_loop import Probe
from captum_ablate.ablation.plan import Chain, Plan
from captum_ablate.ablation.reference import (
    Reference,
    ReferenceFit,
    ReferenceOption,
    fit_of,
    plain_reference,
    reference_name,
)
from captum_ablate.ablation.site import Site
from captum_ablate.ablation.trial import probe_few

__all__ = [
    "Chain",
    "Engine",
    "Measured",
    "Opened",
    "Plan",
    "Probe",
    "Reference",
    "ReferenceFit",
    "ReferenceOption",
    "Site",
    "fit_of",
    "plain_reference",
    "probe_few",
    "reference_name",
]
