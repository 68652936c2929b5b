"""What a deficit curve says of its values: areas, intervals, classes, and how it is shown; against loops."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import matplotlib as mpl
import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from captum_ablate import CumulativeAblationEvaluator, DeficitCurve
from captum_ablate.evaluation.areas import deficit_areas
from captum_ablate.evaluation.provenance import Provenance

mpl.use("Agg")


def made(counts, units, values, ascending, target=None, in_sample=False, **about):
    """A curve from given values."""
    n = values.shape[1]
    return DeficitCurve(
        name="mine",
        scores=torch.arange(units, 0, -1, dtype=torch.float64),
        order=torch.arange(units),
        n_ablated=torch.tensor(counts),
        values=values,
        ascending_values=ascending,
        target=torch.arange(n) % 2 if target is None else target,
        z=0.0,
        p_raw=1.0,
        p_exact=1.0,
        p=1.0,
        ties=0,
        random_quantiles=torch.zeros(0, len(counts), dtype=torch.float64),
        provenance=Provenance(
            **{
                "layers": {"hidden": units},
                "reference": "zero",
                "metric": "accuracy",
                "intact": float(values[0].mean()),
                "n": n,
                "n_random": 0,
                "seed": 0,
                "in_sample": in_sample,
                "engine": "graph",
                **about,
            }
        ),
    )


@st.composite
def grids(draw):
    units = draw(st.integers(1, 20))
    counts = draw(st.sets(st.integers(1, units))) | {0, units}
    n = draw(st.integers(2, 6))
    stream = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    values = torch.randn(2, len(counts), n, generator=stream, dtype=torch.float64)
    values[1, [0, -1]] = values[0, [0, -1]]  # both directions begin intact and end with every unit ablated
    return units, sorted(counts), values


@given(grids())
@settings(deadline=None, max_examples=50)
def test_areas_are_those_of_a_loop_over_samples_and_steps(grid):
    units, counts, (down, up) = grid
    curve = made(counts, units, down, up)
    fractions = [k / units for k in counts]
    np.testing.assert_allclose(curve.fraction, fractions)
    forth, back = oracles.deficit_areas(down, fractions), oracles.deficit_areas(up, fractions)
    np.testing.assert_allclose(curve.areas, forth, atol=1e-12)
    np.testing.assert_allclose(curve.ascending_areas, back, atol=1e-12)
    np.testing.assert_allclose(curve.gap_areas, forth - back, atol=1e-12)
    assert curve.deletion == pytest.approx(forth.mean(), abs=1e-12)
    assert curve.insertion == pytest.approx(-back.mean(), abs=1e-12)
    assert curve.gap == pytest.approx(curve.deletion + curve.insertion, abs=1e-12)
    for found, values in (
        (curve.deletion_interval, forth),
        (curve.insertion_interval, -back),
        (curve.gap_interval, forth - back),
    ):
        assert found == pytest.approx(oracles.student_interval(values), rel=1e-9, abs=1e-12)


@given(grids())
@settings(deadline=None, max_examples=30)
def test_insertion_is_minus_the_area_over_the_kept_units_read_backwards(grid):
    units, counts, (down, up) = grid
    kept = [units - k for k in counts][::-1]  # ascending step k keeps the top units - k
    curve, widths = up.flip(0), np.diff(kept) / units
    area = sum(w * (curve[k] + curve[k + 1]) / 2 for k, w in enumerate(widths))
    expected = float((area - curve[-1]).mean())
    assert made(counts, units, down, up).insertion == pytest.approx(expected, abs=1e-12)


def test_areas_of_curves_known_by_heart():
    fraction = torch.linspace(0, 1, 11, dtype=torch.float64)
    straight, flat = 1 - fraction, torch.ones(11, dtype=torch.float64)
    cliff = torch.tensor([1.0] + [0.0] * 10, dtype=torch.float64)
    areas = deficit_areas(torch.stack([straight, flat, cliff], dim=1), fraction)
    torch.testing.assert_close(areas, torch.tensor([0.5, 0.0, 0.95], dtype=torch.float64))


def test_a_curve_that_the_reverse_equals_has_no_gap():
    values = torch.rand(5, 8, dtype=torch.float64)
    curve = made([0, 1, 2, 3, 4], 4, values, values)
    assert curve.gap == 0
    assert curve.gap_interval == (0, 0)


def test_scores_deficits_and_classes_are_means_of_the_values():
    values, target = torch.rand(3, 7, dtype=torch.float64), torch.tensor([5, 5, 2, 9, 2, 5, 2])
    curve = made([0, 3, 4], 4, values, values.flip(1), target)
    torch.testing.assert_close(curve.score, values.mean(1))
    torch.testing.assert_close(curve.ascending_score, values.flip(1).mean(1))
    torch.testing.assert_close(curve.deficit, values[0].mean() - values.mean(1))
    assert curve.deficit[0] == 0
    assert curve.classes.tolist() == [2, 5, 9]
    for row, c in zip(curve.per_class, (2, 5, 9), strict=True):
        expected = [np.mean([float(v) for v, y in zip(step, target, strict=True) if y == c]) for step in values]
        np.testing.assert_allclose(row, expected)


def test_the_top_units_are_the_first_to_go():
    curve = replace(made([0, 4], 4, *torch.rand(2, 2, 3, dtype=torch.float64)), order=torch.tensor([2, 0, 3, 1]))
    assert curve.top(2).tolist() == [2, 0]
    assert curve.top(0).tolist() == []
    assert curve.top(4).tolist() == [2, 0, 3, 1]
    for k in (-1, 5):
        with pytest.raises(ValueError, match=f"k must be between 0 and the number of units, 4; got {k}"):
            curve.top(k)


def test_the_frame_is_long_with_a_row_for_each_direction_and_step():
    values = torch.rand(2, 3, 6, dtype=torch.float64)
    frame = made([0, 1, 4], 4, *values).to_frame()
    assert list(frame.columns) == [
        "method", "direction", "n_ablated", "fraction", "score", "low", "high", "deficit",
    ]  # fmt: skip
    assert len(frame) == 6
    for direction, own in zip(("descending", "ascending"), values, strict=True):
        rows = frame[frame["direction"] == direction]
        assert rows["n_ablated"].tolist() == [0, 1, 4]
        assert rows["fraction"].tolist() == [0, 0.25, 1]
        np.testing.assert_allclose(rows["score"], own.mean(1))
        np.testing.assert_allclose(rows["deficit"], own[0].mean() - own.mean(1))
        for (low, high), step in zip(zip(rows["low"], rows["high"], strict=True), own, strict=True):
            assert (low, high) == pytest.approx(oracles.student_interval(step.tolist()), rel=1e-9)
    assert set(frame["method"]) == {"mine"}


def test_the_intervals_of_a_bounded_metric_hold_where_few_samples_change():
    down, up = torch.ones(2, 3, 50, dtype=torch.float64)
    down[1:, 0] = down[2, :] = up[2, :] = 0
    curve = made([0, 1, 4], 4, down, up, bounds=(0.0, 1.0))
    for found, areas in (
        (curve.deletion_interval, curve.areas),
        (curve.insertion_interval, -curve.ascending_areas),
        (curve.gap_interval, curve.gap_areas),
    ):
        assert found == pytest.approx(oracles.bounded_interval(areas.tolist(), 1), rel=1e-9)
    assert curve.gap_interval.low < 0 < curve.gap_interval.high
    frame = curve.to_frame()
    assert (frame["low"] >= 0).all()
    assert (frame["high"] <= 1).all()
    assert frame["low"][1] == pytest.approx(oracles.bounded_interval(down[1].tolist(), 1)[0])


def test_a_curve_is_frozen():
    curve = made([0, 4], 4, *torch.rand(2, 2, 3, dtype=torch.float64))
    with pytest.raises(FrozenInstanceError):
        curve.name = "other"
    with pytest.raises((FrozenInstanceError, AttributeError)):
        curve.gap = 1.0


def test_a_curve_draws_itself_and_takes_axes():
    values = torch.rand(2, 3, 6, dtype=torch.float64)
    curve, ax = made([0, 1, 4], 4, *values), Figure().subplots()
    assert curve.plot(ax) is ax
    assert curve.plot(ax=ax) is ax
    drawn = [line for line in ax.lines if len(line.get_xdata()) == 3]
    assert any(np.allclose(line.get_ydata(), values[0].mean(1)) and line.get_linestyle() == "-" for line in drawn)
    assert any(np.allclose(line.get_ydata(), values[1].mean(1)) and line.get_linestyle() == "--" for line in drawn)
    assert ax.get_ylabel() == "accuracy"
    own = curve.plot()
    assert own is not ax
    mpl.pyplot.close(own.figure)


@pytest.mark.parametrize("in_sample", [True, False])
def test_in_sample_is_said_wherever_a_curve_is_shown(in_sample):
    values = torch.rand(2, 3, 6, dtype=torch.float64)
    curve = made([0, 1, 4], 4, *values, in_sample=in_sample)
    ax = curve.plot(Figure().subplots())
    title = " ".join(ax.get_title(where) for where in ("left", "center", "right"))
    assert curve.in_sample == in_sample
    for text in (repr(curve), str(curve), curve.setting, title):
        assert ("in-sample" in text) == in_sample


def test_a_curve_says_in_a_line_what_it_is():
    values = torch.rand(2, 3, 6, dtype=torch.float64)
    curve = made([0, 1, 4], 4, *values, n_random=3, n=2345, intact=0.9121)
    assert curve.setting == "hidden (4 units, zero reference, accuracy 0.912 on 2,345 samples, 3 random orders)"
    low, high = curve.gap_interval
    assert f"'mine': gap {curve.gap:.3f} [{low:.3f}, {high:.3f}], deletion {curve.deletion:.3f}" in repr(curve)


def test_the_order_names_units_most_important_first(dense, dense_data):
    scores = torch.tensor([0.1, -5, 3, 2, 0.5, 0.2])
    curve = CumulativeAblationEvaluator(dense, "2", n_random=0).evaluate(scores, dense_data)
    assert curve.order.tolist() == [2, 3, 4, 5, 0, 1]
    assert curve.top(2).tolist() == [2, 3]
    torch.testing.assert_close(curve.scores, scores.double())
    assert (curve.engine, curve.in_sample) == (curve.provenance.engine, curve.provenance.in_sample)
