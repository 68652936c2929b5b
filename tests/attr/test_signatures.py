"""The constructors: their signatures to the letter, and what a subclass may do with them."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import ClassVar

import pytest
import torch
from torch import nn

import captum_ablate
from captum_ablate import LayerClassSelectivity, LayerDatasetAttribution, LayerEntropy, LayerMutualInformation
from captum_ablate.statistics.moments import ClassMoments
from captum_ablate.statistics.requests import MomentsRequest

COMMON = (
    "self, forward_func: 'ForwardFunc', layer: 'Layer | Sequence[Layer]', device_ids: 'list[int] | None' = None, *, "
    "unit_dim: 'int | None' = 1, layer_mask: 'Tensor | None' = None"
)
QUANTISER = ", threshold: 'float | Tensor | str | None' = None, bins: 'int | None' = None, edges: 'str' = 'width'"
OWN = {
    "LayerDatasetAttribution": "",
    "LayerMeanActivity": "",
    "LayerClassSelectivity": ", eps: 'float' = 0.0",
    "LayerEntropy": QUANTISER,
    "LayerMutualInformation": f"{QUANTISER}, bias_correction: 'bool' = False",
    "LayerKLSelectivity": f"{QUANTISER}, bias_correction: 'bool' = False",
    "LayerSelectivityActivity": (
        ", selectivity: 'SelectivityFactory' = <class 'captum_ablate.attr.selectivity.LayerClassSelectivity'>"
    ),
    "LayerLinearProbe": ", C: 'float | None' = None",
    "LayerActivationNorm": "",
    "LayerTaylor": "",
    "LayerWeightNorm": "",
    "LayerUnitAblation": ", reference: 'ReferenceOption' = 'zero', metric: 'str | Metric' = 'log_likelihood'",
}


@pytest.mark.parametrize(("name", "own"), OWN.items())
def test_signatures_are_those_written_here(name, own):
    cls = getattr(captum_ablate, name)
    assert str(inspect.signature(cls.__init__)) == f"({COMMON}{own}) -> 'None'"
    called = inspect.signature(cls)
    constructor = inspect.signature(cls.__init__)
    assert list(called.parameters.values()) == list(constructor.parameters.values())[1:]
    assert called.return_annotation == "None"


class WithOwnConstructor(LayerClassSelectivity):
    """Has a constructor of its own, in the way of any Python class."""

    def __init__(self, forward_func, layer, power, **options):
        super().__init__(forward_func, layer, **options)
        self.power = power

    def score(self, moments: ClassMoments):
        return super().score(moments) ** self.power


class OfThat(WithOwnConstructor):
    """Inherits the constructor that its parent wrote."""


@pytest.mark.parametrize("cls", [WithOwnConstructor, OfThat])
def test_a_subclass_may_have_a_constructor_of_its_own(dense, dense_data, cls):
    assert list(inspect.signature(cls).parameters) == ["forward_func", "layer", "power", "options"]
    x, y = dense_data
    scores = cls(dense, "0", 2, eps=0.5, unit_dim=1).attribute(x, target=y)
    plain = LayerClassSelectivity(dense, "0", eps=0.5).attribute(x, target=y)
    torch.testing.assert_close(scores, plain**2)


@pytest.mark.parametrize(
    ("cls", "options"),
    [(LayerMutualInformation, {"bins": 4, "bias_correction": True}), (WithOwnConstructor, {"power": 3, "eps": 0.1})],
)
def test_attributions_are_copied_and_pickled_with_their_options(dense, dense_data, cls, options):
    x, y = dense_data
    attribution = cls(dense, "1", **options)
    scores = attribution.attribute(x, target=y)
    for other in (copy.copy(attribution), copy.deepcopy(attribution), pickle.loads(pickle.dumps(attribution))):
        assert type(other) is cls
        torch.testing.assert_close(other.attribute(x, target=y), scores, rtol=0, atol=0)


def test_an_unknown_option_is_refused(dense):
    with pytest.raises(TypeError, match="unexpected keyword argument 'bin'"):
        LayerEntropy(dense, "0", bin=4)
    with pytest.raises(TypeError, match="positional argument"):
        LayerEntropy(dense, "0", None, 4)


class Power(LayerClassSelectivity):
    """Has an option more, another default, and annotations that are no options."""

    kind: ClassVar[str] = "power"
    requests: tuple = (MomentsRequest(),)
    power: int
    eps: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        self.checked = (self.power, self.eps)

    def score(self, moments):
        return super().score(moments) ** self.power


def test_annotated_fields_are_options_whose_defaults_may_change(dense):
    own = ", eps: 'float' = 0.5, power: 'int'"
    assert str(inspect.signature(Power.__init__)) == f"({COMMON}{own}) -> 'None'"
    assert Power(dense, "0", power=2).checked == (2, 0.5)
    assert Power(dense, "0", power=2, eps=0.1).checked == (2, 0.1)
    with pytest.raises(TypeError, match="Power needs the option 'power'; pass power="):
        Power(dense, "0")


def test_a_subclass_without_options_has_the_constructor_of_its_parent():
    class Same(LayerDatasetAttribution):
        factor = 2.0

        def score(self, moments):
            return self.factor * moments.mean

    assert str(inspect.signature(Same.__init__)) == f"({COMMON}) -> 'None'"
    assert Same(nn.Sequential(nn.Linear(2, 2)), "0").factor == 2.0
