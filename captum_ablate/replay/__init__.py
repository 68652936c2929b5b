"""The engine: the metric of a network under many ablations, without running again what comes before the layer."""

from captum_ablate.replay.engine import Engine, Measured, Opened
from captum_ablate.replay.hook_loop import Probe
from captum_ablate.replay.plan import Chain, Plan
from captum_ablate.replay.reference import (
    Reference,
    ReferenceFit,
    ReferenceOption,
    fit_of,
    plain_reference,
    reference_name,
)
from captum_ablate.replay.site import Site
from captum_ablate.replay.trial import probe_few

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
