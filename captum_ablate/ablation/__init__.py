"""The engine: a network's metric under many ablations. What comes before the layer runs once."""

import os

if os.environ.get("CAPTUM_ABLATE_ENGINE", "new") == "new":
    from captum_ablate.ablation.new.engine import BatchOutputs, Engine, Measured
else:
    from captum_ablate.ablation.engine import BatchOutputs, Engine, Measured  # type: ignore[assignment]
from captum_ablate.ablation.hook_loop import Probe
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
