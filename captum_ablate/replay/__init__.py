"""The engine: the metric of a network under many ablations, without running again what comes before the layer."""

from captum_ablate.replay.engine import Engine, Measured
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

__all__ = [
    "Chain",
    "Engine",
    "Measured",
    "Plan",
    "Reference",
    "ReferenceFit",
    "ReferenceOption",
    "Site",
    "fit_of",
    "plain_reference",
    "reference_name",
]
