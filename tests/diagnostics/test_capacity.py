"""Capacity under dropout: the capacity that Blahut and Arimoto's algorithm finds lies within the bounds."""

from __future__ import annotations

import numpy as np
import pytest

from captum_ablate import dropout_capacity_bounds


def blahut_arimoto(channel, rounds=5000):
    """Capacity in bits of ``channel [inputs, outputs]``, rows being P(output given input)."""
    p = np.full(len(channel), 1 / len(channel))
    for _ in range(rounds):
        q = p @ channel  # P(output)
        divergence = (channel * np.log2(np.where(channel > 0, channel / q, 1))).sum(axis=1)  # of each input from q
        gain = 2**divergence
        p = p * gain / (p @ gain)
    return np.log2(p @ gain)


def dropping(bits, dropout):
    """2^bits symbols, each becoming symbol 0 with probability ``dropout``."""
    channel = (1 - dropout) * np.eye(2**bits)
    channel[:, 0] += dropout
    return channel


def test_the_oracle_knows_the_capacity_of_a_z_channel():
    assert blahut_arimoto(dropping(1, 0.5)) == pytest.approx(np.log2(5 / 4), abs=1e-6)
    assert blahut_arimoto(dropping(3, 0.0)) == pytest.approx(3)


@pytest.mark.parametrize(
    ("bits", "dropout", "capacity", "low", "high"),
    [(2, 0.2, 1.381, 0.936, 1.6), (4, 0.2, 3.126, 2.902, 3.2), (4, 0.5, 1.953, 1.814, 2.0)],
)
def test_the_capacity_lies_within_the_bounds(bits, dropout, capacity, low, high):  # claim C3.7
    found = blahut_arimoto(dropping(bits, dropout))
    bounds = dropout_capacity_bounds(1, bits, dropout)
    assert found == pytest.approx(capacity, abs=1e-3)
    assert bounds.low[0] == pytest.approx(low, abs=1e-3)
    assert bounds.high[0] == pytest.approx(high, abs=1e-3)
    assert bounds.low[0] < bounds.tight_low[0] < found + 1e-6 < bounds.high[0]


@pytest.mark.parametrize("bits", [1, 2, 3, 5])
def test_the_bounds_hold_at_every_rate(bits):
    rates = [0.05, 0.3, 0.6, 0.9]
    bounds = dropout_capacity_bounds(1, bits, rates)
    found = [blahut_arimoto(dropping(bits, rate)) for rate in rates]
    assert (bounds.tight_low <= np.array(found) + 1e-6).all()
    assert (found <= bounds.high).all()


def test_the_tighter_bound_is_reached_by_not_using_the_symbol_0():
    unused = blahut_arimoto(dropping(3, 0.4)[1:])
    assert dropout_capacity_bounds(1, 3, 0.4).tight_low[0] == pytest.approx(unused)


def test_independent_neurons_add_up_and_no_bound_is_below_zero():
    one, many = (dropout_capacity_bounds(m, 3, [0.0, 0.4, 1.0]) for m in (1, 32))
    np.testing.assert_allclose(many.low, 32 * one.low)
    np.testing.assert_allclose(many.high, [96, 57.6, 0])
    weak = dropout_capacity_bounds(5, 0.1, 0.2)
    assert weak.low[0] == weak.tight_low[0] == 0 < weak.high[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 2, 0.1), "neurons must be an int, at least 1; got 0"),
        ((1, 0, 0.1), "bits, the capacity of one neuron without dropout, must be above 0 and finite; got 0"),
        ((1, float("inf"), 1.0), "must be above 0 and finite; got inf"),
        ((1, 2, 1.5), "dropout must be rates between 0 and 1; got 1.5"),
        ((1, 2, float("nan")), "between 0 and 1"),
    ],
)
def test_wrong_arguments_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        dropout_capacity_bounds(*arguments)


def test_a_frame_and_a_picture_show_the_bounds():
    bounds = dropout_capacity_bounds(8, 4, [0.0, 0.5])
    assert bounds.to_frame()["high"].tolist() == [32, 16]
    assert "8 neurons of 4 bits" in bounds.plot().get_title(loc="left")
