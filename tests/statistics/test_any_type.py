"""Activations of any type: whole numbers, bits and half precision count as in float64; complex ones are refused."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from torch import nn

from captum_ablate import (
    LayerClassSelectivity,
    LayerEntropy,
    LayerKLSelectivity,
    LayerLinearProbe,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerSelectivityActivity,
    activation_spectrum,
    random_projection_test,
)
from captum_ablate.studies import activation_table

pytestmark = pytest.mark.filterwarnings("ignore:.*units have an entropy below:UserWarning")

STATISTICAL = [
    LayerMeanActivity,
    LayerClassSelectivity,
    LayerEntropy,
    LayerMutualInformation,
    partial(LayerMutualInformation, threshold=0.3),
    partial(LayerMutualInformation, threshold="median"),
    partial(LayerMutualInformation, bins=5),
    partial(LayerMutualInformation, bins=5, edges="mass"),
    LayerKLSelectivity,
    LayerSelectivityActivity,
    partial(LayerLinearProbe, C=1.0),
]


class Apply(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x):
        return self.f(x)


def shown_as(f):
    """A net whose first layer returns ``f`` of its input."""
    return nn.Sequential(
        Apply(f), Apply(lambda x: (x.abs() if x.is_complex() else x).float().flatten(1)), nn.LazyLinear(3)
    ).eval()


TYPES = {
    "int64": lambda x: (x * 2).round().long(),
    "int8": lambda x: (x * 2).round().to(torch.int8),
    "uint8": lambda x: (x * 2).round().abs().to(torch.uint8),
    "bool": lambda x: x > 0,
    "float16": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "float64": lambda x: x.double(),
    "float8": lambda x: x.to(torch.float8_e4m3fn),
}


@pytest.mark.parametrize("shape", [(6,), (6, 2, 2)], ids=["dense", "positions"])
@pytest.mark.parametrize("name", TYPES)
def test_statistics_of_any_real_type_are_those_of_its_values_in_float64(name, shape):
    own = TYPES[name]
    x, y = torch.randn(30, *shape, generator=torch.Generator().manual_seed(0)) * 2, torch.arange(30) % 3
    model, wide = shown_as(own), shown_as(lambda x: own(x).double())
    model(x), wide(x)
    for factory in STATISTICAL:
        scores, expected = (factory(m, "0").attribute(x, target=y, batch_size=7) for m in (model, wide))
        torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-9)
    spectra = [activation_spectrum(m, "0", x, fit_range=(1, 4)) for m in (model, wide)]
    torch.testing.assert_close(spectra[0].eigenvalues, spectra[1].eigenvalues, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(6,), (6, 2, 2)], ids=["dense", "positions"])
def test_statistics_of_complex_activations_are_refused(shape):
    x, y = torch.randn(30, *shape), torch.arange(30) % 3
    model = shown_as(lambda x: torch.complex(x, x.flip(1)))
    model(x)
    complex_layer = r"layer '0' has complex activations \(torch.complex128\).*torch.view_as_real"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing has dropped the imaginary part before
        for factory in STATISTICAL:
            with pytest.raises(ValueError, match=complex_layer):
                factory(model, "0").attribute(x, target=y)
        with pytest.raises(ValueError, match=complex_layer):
            activation_spectrum(model, "0", x)
        with pytest.raises(ValueError, match=complex_layer):
            activation_table(model, "0", (x, y))
        with pytest.raises(ValueError, match=complex_layer):
            random_projection_test(model, "0", lambda frames: torch.randn(frames, *shape))
    assert not model[0]._forward_hooks
