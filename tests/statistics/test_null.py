"""Random orders as a null: z, both p against plain loops, and how often chance looks significant."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

from captum_ablate.statistics.null import against_chance, holm

GAPS = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=1, max_size=30)


@given(st.floats(-1, 1).map(lambda x: round(x, 3)), GAPS)
def test_z_and_p_are_those_of_plain_loops(gap, null):
    if not any(null):
        return
    found = against_chance(gap, np.array(null))
    assert found == pytest.approx(oracles.against_chance(gap, null), rel=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_that_of_a_plain_loop(p):
    np.testing.assert_allclose(holm(np.array(p)), oracles.holm(p))


def test_p_that_are_not_known_do_not_count():
    np.testing.assert_allclose(holm(np.array([0.01, np.nan, 0.04])), [0.02, np.nan, 0.04])


def test_without_random_orders_nothing_is_known():
    assert np.isnan(against_chance(0.3, np.array([]))).all()


def test_where_all_random_gaps_are_zero_chance_says_nothing():
    z, p_raw, p_exact = against_chance(0.3, np.zeros(5))
    assert np.isnan(z)
    assert (p_raw, p_exact) == (1, 1)


def test_scale_and_sign_do_what_they_should():
    null = np.array([0.1, -0.2, 0.05])
    one, ten = against_chance(0.3, null), against_chance(3.0, 10 * null)
    assert one == pytest.approx(ten)
    assert against_chance(-0.3, null).z == -one.z
    assert against_chance(-0.3, null).p_raw == pytest.approx(1 - one.p_raw)


def gap_of(order, value, counts, units):
    """The gap of one order of the units of a value function on masks: area of the order minus that of its reverse."""

    def area(one):
        values, mask = [value(np.zeros(units, bool))], np.zeros(units, bool)
        for low, high in zip([0, *counts], counts, strict=False):
            mask[one[low:high]] = True
            values.append(value(mask))
        widths = np.diff([0, *counts]) / units
        return values[0] - float((widths * (np.array(values[1:]) + values[:-1]) / 2).sum())

    return area(order) - area(order[::-1])


def value_functions(units, rng):
    """Planted networks as functions of the mask: graded, one unit, redundant and needed pairs, a suppressor."""
    share = rng.exponential(size=units) ** 3
    share /= share.sum()
    return {
        "one unit": lambda mask: 1.0 - mask[0],
        "graded": lambda mask: 1 - share[mask].sum(),
        "saturated": lambda mask: 1 / (1 + np.exp(-20 * (0.5 - share[mask].sum()))),
        "redundant pair": lambda mask: 1.0 - (mask[0] & mask[1]),
        "needed pair": lambda mask: 1.0 - (mask[0] | mask[1]),
        "suppressor": lambda mask: 1 - share[mask].sum() + mask[-1] / 2,
    }


@pytest.mark.parametrize("units", [8, 32])
@pytest.mark.parametrize("planted", ["one unit", "graded", "saturated", "redundant pair", "needed pair", "suppressor"])
def test_chance_is_significant_no_more_often_than_it_says(planted, units):
    """Fresh random orders against R others: 5 % and 0.5 %, with the slack of the simulation."""
    rng = np.random.default_rng(0)
    value = value_functions(units, rng)[planted]
    counts = sorted({round(k * units / 10) for k in range(1, 11)} - {0})
    pool = np.array([gap_of(rng.permutation(units), value, counts, units) for _ in range(1500)])
    for orders in (5, 20):
        draws = rng.integers(0, len(pool), (4000, orders + 1))
        found = np.array([against_chance(pool[draw[0]], pool[draw[1:]]) for draw in draws])
        assert (found[:, 1] <= 0.05).mean() <= 0.06
        assert (found[:, 1] <= 0.005).mean() <= 0.0125
        assert (found[:, 2] <= 0.05).mean() <= 0.06
