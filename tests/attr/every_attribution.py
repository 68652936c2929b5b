"""Every attribution over a labelled data set, with its own options."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from captum_ablate import (
    LayerActivationNorm,
    LayerClassSelectivity,
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
)

OWN_OPTIONS = {
    LayerMeanActivity: {},
    LayerClassSelectivity: {"eps"},
    LayerEntropy: {"threshold", "bins", "edges"},
    LayerMutualInformation: {"threshold", "bins", "edges", "bias_correction"},
    LayerKLSelectivity: {"threshold", "bins", "edges", "bias_correction"},
    LayerSelectivityActivity: {"selectivity"},
    LayerLinearProbe: {"C"},
    LayerUnitAblation: {"reference", "metric"},
    LayerShapleyValue: {"reference", "metric", "permutations", "seed"},
    LayerWeightNorm: {},
    LayerActivationNorm: {},
    LayerTaylor: {},
}
CLASSES = list(OWN_OPTIONS)
PROBE = partial(LayerLinearProbe, C=1.0)  # the same strength whatever the folds, and fast
FEW = partial(LayerShapleyValue, permutations=2)
FACTORIES = [{LayerLinearProbe: PROBE, LayerShapleyValue: FEW}.get(cls, cls) for cls in CLASSES]

each_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
each = pytest.mark.parametrize("factory", FACTORIES, ids=[cls.__name__ for cls in CLASSES])


def close(one, other, atol=1e-5):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=atol)
