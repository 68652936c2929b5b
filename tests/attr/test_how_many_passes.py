"""One pass is enough for whatever streams; what needs more says so, and gives the same."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from every_attribution import FACTORIES, FEW, close

from captum_ablate import (
    LayerClassSelectivity,
    LayerEntropy,
    LayerKLSelectivity,
    LayerLinearProbe,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerUnitAblation,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*units have an entropy below:UserWarning")


@pytest.mark.parametrize("factory", [f for f in FACTORIES if f not in (LayerUnitAblation, FEW)])  # they ablate
def test_a_one_shot_generator_is_fine_where_one_pass_will_do(dense, dense_data, factory):
    x, y = dense_data
    attribution = factory(dense, "2")
    batches = list(zip(x.split(25), y.split(25), strict=True))
    close(attribution.attribute(batch for batch in batches), attribution.attribute(x, target=y))


def test_a_one_shot_generator_is_refused_where_a_second_pass_is_needed(dense, dense_data, monkeypatch):
    monkeypatch.setattr("captum_ablate.statistics.unit_statistics.TABLE_BYTES", 10)
    batches = zip(dense_data[0].split(25), dense_data[1].split(25), strict=True)
    with pytest.raises(ValueError, match=r"one-shot generator, and more than one pass.*pass a list of batches"):
        LayerMutualInformation(dense, "0", bins=4).attribute(batches)


def test_a_one_shot_generator_is_refused_by_unit_ablation_before_any_of_it_is_used(dense, dense_data):
    batches = zip(dense_data[0].split(25), dense_data[1].split(25), strict=True)
    with pytest.raises(ValueError, match=r"one-shot generator, and more than one pass.*Unit Ablation"):
        LayerUnitAblation(dense, "0").attribute(batches)
    assert len(list(batches)) == 3


@pytest.mark.parametrize("cls", [LayerEntropy, LayerMutualInformation, LayerKLSelectivity])
def test_two_passes_give_what_one_pass_gives(digits_net, small_digits, monkeypatch, cls):
    x, y = small_digits
    attribution = cls(digits_net, ["conv1", "relu3"], bins=5)
    once = attribution.attribute(x, target=y, batch_size=40)
    monkeypatch.setattr("captum_ablate.statistics.unit_statistics.TABLE_BYTES", 10)
    twice = attribution.attribute(x, target=y, batch_size=40)
    default = cls(digits_net, "conv1").attribute(x, target=y, batch_size=40)
    monkeypatch.undo()
    for one, other in zip(once, twice, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    torch.testing.assert_close(cls(digits_net, "conv1").attribute(x, target=y), default, rtol=0, atol=0)


@pytest.mark.parametrize(
    "factory",
    [
        LayerLinearProbe,
        partial(LayerEntropy, threshold="median"),
        partial(LayerMutualInformation, bins=4, edges="mass"),
    ],
)
def test_what_needs_all_activations_at_once_says_so_beyond_its_budget(dense, dense_data, monkeypatch, factory):
    monkeypatch.setattr("captum_ablate.statistics.unit_statistics.TABLE_BYTES", 10)
    with pytest.raises(ValueError, match=r"exceeds its budget of .* GiB.*use fewer samples, or bins="):
        factory(dense, "0").attribute(dense_data[0], target=dense_data[1])


def test_statistics_that_stream_do_not_care_about_the_budget(dense, dense_data, monkeypatch):
    x, y = dense_data
    attributions = [
        LayerMeanActivity(dense, "0"),
        LayerClassSelectivity(dense, "0"),
        LayerMutualInformation(dense, "0", threshold=0.1),
    ]
    before = [a.attribute(b for b in [(x, y)]) for a in attributions]
    monkeypatch.setattr("captum_ablate.statistics.unit_statistics.TABLE_BYTES", 10)
    for attribution, scores in zip(attributions, before, strict=True):
        torch.testing.assert_close(attribution.attribute(b for b in [(x, y)]), scores, rtol=0, atol=0)
