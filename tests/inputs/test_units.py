"""Which axis holds the units, what is averaged away, and how indices are joined."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_ablate.inputs import units as units_file
from captum_ablate.inputs.units import UnitAxis


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.data())
def test_pooling_equals_the_mean_over_positions_for_every_shape_and_axis(shape, data):
    dim = data.draw(st.sampled_from([*range(1, len(shape)), *range(1 - len(shape), 0), None]))
    output = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    axis = UnitAxis.of(dim)
    expected = oracles.pooled(output.double().numpy(), dim)
    np.testing.assert_allclose(axis.pool(output).numpy(), expected, rtol=1e-12, atol=1e-12)
    assert axis.count(output.shape) == expected.shape[1]
    assert axis.positions(output.shape) * axis.count(output.shape) == output[0].numel()
    np.testing.assert_allclose(
        axis.total(output).numpy(), expected * axis.positions(output.shape), rtol=1e-12, atol=1e-12
    )


def test_pooled_values_are_float64_and_their_own():
    output = torch.ones(3, 2, dtype=torch.float64)
    pooled = UnitAxis.of(1).pool(output)
    output.zero_()
    assert pooled.dtype == torch.float64
    assert pooled.tolist() == [[1, 1]] * 3


def test_groups_average_their_indices_and_sum_in_totals():
    output = torch.tensor([[[1.0, 3.0], [10.0, 30.0], [100.0, 300.0]]])  # [1, 3, 2]
    axis = UnitAxis.of(1, torch.tensor([0, 1, 0]))
    assert axis.pool(output).tolist() == [[101.0, 20.0]]
    assert axis.total(output).tolist() == [[404.0, 40.0]]
    assert axis.count(output.shape) == 2


def test_spread_puts_one_value_at_every_index():
    axis = UnitAxis.of(-1, torch.tensor([1, 0, 1]))
    spread = axis.spread(torch.tensor([[5.0, 7.0]]), torch.Size([4, 6, 3]))
    assert spread.shape == (1, 1, 3)
    assert spread.flatten().tolist() == [7.0, 5.0, 7.0]


def test_every_element_is_a_unit_in_the_order_of_flatten():
    output = torch.arange(24.0).reshape(2, 3, 4)
    assert torch.equal(UnitAxis.of(None).pool(output), output.double().flatten(1))
    assert UnitAxis.of(None).positions(output.shape) == 1


@pytest.mark.parametrize("unit_dim", ["1", 1.0, True])
def test_a_unit_dim_that_is_no_int_is_refused(unit_dim):
    with pytest.raises(TypeError, match="unit_dim must be an int or None"):
        UnitAxis.of(unit_dim)


def test_the_axis_of_the_samples_is_refused():
    with pytest.raises(ValueError, match="unit_dim=0 is the axis of the samples"):
        UnitAxis.of(0)


@pytest.mark.parametrize("unit_dim", [3, 7, -3, -4])
def test_an_axis_that_the_output_does_not_have_is_refused_with_those_it_has(unit_dim):
    with pytest.raises(
        ValueError, match=rf"unit_dim={unit_dim} is no unit axis .*\(5, 4, 3\); choose one of 1\.\.2, -1"
    ):
        UnitAxis.of(unit_dim).pool(torch.zeros(5, 4, 3))


def test_an_output_of_samples_only_has_no_units():
    for unit_dim in (1, -1, None):
        with pytest.raises(ValueError, match="unit"):
            UnitAxis.of(unit_dim).pool(torch.zeros(5))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.tensor([0.0, 1.0]), "must hold group numbers"),
        (torch.tensor([-1, 0]), "must hold group numbers"),
        (torch.tensor([], dtype=torch.long), "must hold group numbers"),
        (torch.tensor([0, 2]), "every group number from 0 to 2; some are missing"),
        (torch.tensor([[0, 1], [1, 0]]), r"must vary along unit_dim only.*\(2, 2\)"),
    ],
)
def test_a_layer_mask_that_is_no_grouping_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        UnitAxis.of(1, mask)


def test_a_layer_mask_of_another_width_is_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"one group number for each of the 3 indices.*got 2"):
        UnitAxis.of(1, torch.tensor([0, 1])).pool(torch.zeros(4, 3))


@pytest.mark.parametrize("block", [1, 100, 2**17])
@pytest.mark.parametrize(
    ("shape", "unit_dim"), [((9, 4, 5, 3), 1), ((9, 5, 6), -1), ((9, 4), 1), ((9, 3, 4, 2, 2), 2), ((9, 4, 5, 3), None)]
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_pooling_in_blocks_is_the_float64_mean(monkeypatch, block, shape, unit_dim, channels_last):
    monkeypatch.setattr(units_file, "BLOCK", block)
    output = 1e3 * torch.randn(shape)
    if channels_last and len(shape) == 4:
        output = output.to(memory_format=torch.channels_last)
    axis = UnitAxis.of(unit_dim)
    kept = axis.shape(shape)
    dims = [d for d in range(1, len(shape)) if kept[d] == 1]
    wide = output.double()
    expected = (wide.mean(dims) if dims else wide).flatten(1)
    torch.testing.assert_close(axis.pool(output), expected, rtol=1e-13, atol=1e-10)
    torch.testing.assert_close(axis.total(output), expected * axis.positions(shape), rtol=1e-13, atol=1e-10)
