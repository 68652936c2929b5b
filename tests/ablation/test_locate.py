"""Locating a layer serves everything that ablates: what one refuses, all refuse."""

from __future__ import annotations

import pytest
import torch
from captum.attr import LayerActivation
from torch import nn

from captum_ablate import AblationGrid, CumulativeAblationEvaluator, units_to_flip
from captum_ablate.ablation import locate
from captum_ablate.inputs.batches import as_batches
from captum_ablate.inputs.units import UnitAxis
from captum_ablate.studies import unit_drops


class PositionsFirst(nn.Module):
    """A layer that returns ``[positions, n, units]`` in a model of ``[n, positions, features]``."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(6, 10), nn.Linear(10, 3)

    def forward(self, x):
        return self.head(self.inner(x.transpose(0, 1)).relu().mean(0))


@pytest.fixture
def square():
    """As many samples as positions, in one batch."""
    return PositionsFirst().eval(), (torch.randn(8, 8, 6), torch.arange(8) % 3)


CALLS = {
    "evaluator": lambda model, data: CumulativeAblationEvaluator(model, "inner", unit_dim=-1).evaluate(
        torch.rand(10), data
    ),
    "grid": lambda model, data: AblationGrid(torch.rand(10), torch.rand(10), tiles=1, min_units=1).deficits(
        CumulativeAblationEvaluator(model, "inner", unit_dim=-1), data
    ),
    "unit_drops": lambda model, data: unit_drops(model, "inner", data, unit_dim=-1),
    "units_to_flip": lambda model, data: units_to_flip(LayerActivation(model, model.inner), data, unit_dim=-1),
}


@pytest.mark.parametrize("ablate", CALLS.values(), ids=CALLS)
def test_positions_first_are_refused_by_all_that_ablate(square, ablate):
    with pytest.raises(ValueError, match=r"'inner'.*first axis.*must be the samples.*batch_first=True"):
        ablate(*square)


def test_units_are_numbered_on_from_layer_to_layer(dense, dense_data):
    located = locate(dense, [dense[0], dense[2]], [UnitAxis(), UnitAxis()], as_batches(dense_data))
    widths = dense[0].out_features, dense[2].out_features
    assert list(located.units_by_layer.values()) == list(widths)
    assert [(site.units.start, site.units.stop) for site in located.sites] == [(0, widths[0]), (widths[0], sum(widths))]
    assert located.units == sum(widths)


def test_sites_stand_in_running_order(dense, dense_data):
    located = locate(dense, [dense[2], dense[0]], [UnitAxis(), UnitAxis()], as_batches(dense_data))
    assert [site.layer for site in located.in_running_order] == [dense[0], dense[2]]
