"""Tiles of a plane against plain loops: edges, counts, groups, and what is refused."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_ablate.studies import AblationGrid

matplotlib.use("Agg")

numbers = st.floats(-100, 100, allow_nan=False).map(lambda v: round(v, 3))


def plain_tile(value, edges):
    """The tile of a value: the last whose lower edge is not above it."""
    inner = list(edges)[1:-1]
    return sum(bool(value >= edge) for edge in inner)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40), st.integers(1, 5), st.integers(1, 4))
def test_every_unit_lies_in_the_tile_of_its_coordinates(points, tiles, least):
    x, y = np.array(points).T
    for edges in ("width", "quantile"):
        grid = AblationGrid(x, y, tiles=tiles, edges=edges, min_units=least)
        if edges == "width":
            np.testing.assert_allclose(grid.x_edges, np.linspace(x.min(), x.max(), tiles + 1), atol=1e-9)
        else:
            np.testing.assert_allclose(grid.y_edges, np.quantile(y, np.arange(tiles + 1) / tiles), atol=1e-9)
        members = {}
        for unit in range(len(x)):
            tile = plain_tile(x[unit], grid.x_edges.tolist()), plain_tile(y[unit], grid.y_edges.tolist())
            members.setdefault(tile, []).append(unit)
        found = {(g.column, g.row): g.units.tolist() for g in grid.groups}
        assert found == {tile: units for tile, units in members.items() if len(units) >= least}
        assert int(grid.counts.sum()) == len(x)


def test_quantile_tiles_hold_about_equally_many_units_along_each_axis():
    x, y = torch.rand(100) ** 4, torch.randn(100)
    counts = AblationGrid(x, y, tiles=4, edges="quantile").counts
    assert counts.sum(1).tolist() == [25] * 4
    assert counts.sum(0).tolist() == [25] * 4


def test_a_unit_with_a_nan_coordinate_lies_in_no_tile():
    x = torch.tensor([0.0, torch.nan, 1.0, 1.0, 2.0, *[torch.nan] * 19])
    grid = AblationGrid(x, torch.zeros(24), tiles=2, min_units=1)
    assert [g.units.tolist() for g in grid.groups] == [[0], [2, 3, 4]]
    frame = grid.to_frame()
    assert frame["group"].tolist() == [0, -1, 1, 1, 1, *[-1] * 19]
    assert frame["column"].tolist()[:5] == [0, -1, 1, 1, 1]
    assert frame["row"].tolist()[:2] == [1, -1]


def test_a_plot_shows_how_many_units_lie_in_the_plane():
    grid = AblationGrid([0, 1, np.nan], [0, 1, 1], tiles=2, min_units=1)
    assert grid.plot().get_title(loc="left") == "2 units, 2 groups"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([0, 1], [0, 1, 2]), {}, "x and y must have one value for each unit; got 2 and 3"),
        (([[0, 1]], [0, 1]), {}, r"x must have one value for each unit, \[units\]; got shape \(1, 2\)"),
        (([0, np.inf], [0, 1]), {}, "x must be finite, or NaN"),
        (([np.nan, 1], [0, np.nan]), {}, "no unit has two finite coordinates"),
        (([0, 1], [0, 1]), {"tiles": 0}, "tiles must be an int of at least 1; got 0"),
        (([0, 1], [0, 1]), {"min_units": 1.5}, "min_units must be an int of at least 1; got 1.5"),
        (([0, 1], [0, 1]), {"edges": "mass"}, """edges must be "width" or "quantile"; got 'mass'"""),
    ],
)
def test_a_bad_grid_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        AblationGrid(*arguments, **options)
