"""What the pictures must show, read back from the axes; and what drawing must leave alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from captum_ablate.evaluation import plots


@pytest.fixture(autouse=True)
def _no_figures_left() -> Iterator[None]:
    yield
    plt.close("all")


def curves(
    methods: list[str], steps: int = 21, directions: tuple[str, ...] = ("descending", "ascending")
) -> pd.DataFrame:
    fraction = np.linspace(0, 1, steps)
    parts = []
    for number, method in enumerate(methods):
        for direction in directions:
            score = 1 - fraction ** (1 + number / 10 if direction == "descending" else 3)
            parts.append(
                pd.DataFrame(
                    {
                        "method": method,
                        "direction": direction,
                        "fraction": fraction,
                        "score": score,
                        "low": score - 0.02,
                        "high": score + 0.02,
                    }
                )
            )
    return pd.concat(parts)


def random_orders() -> pd.DataFrame:
    fraction = np.linspace(0, 1, 21)
    return pd.DataFrame(
        {"fraction": fraction, "low": 1 - fraction, "median": 1 - fraction**2.5, "high": 1 - fraction**3}
    )


def labels_of(ax: plt.Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_each_method_has_a_solid_line_a_band_and_a_dashed_reverse() -> None:
    frame = curves(["b", "a", "c"])
    ax = plots.deficit_curves(frame)
    solid = [line for line in ax.lines if line.get_linestyle() == "-"]
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert len(solid) == len(dashed) == len(ax.collections) == 3
    assert [line.get_color() for line in solid] == [line.get_color() for line in dashed]
    expected = frame[(frame["method"] == "a") & (frame["direction"] == "descending")]
    np.testing.assert_array_equal(solid[1].get_ydata(), expected["score"])


def test_the_order_of_rows_does_not_matter() -> None:
    shuffled = curves(["a"]).sample(frac=1, random_state=0)
    np.testing.assert_array_equal(plots.deficit_curves(shuffled).lines[-1].get_xdata(), np.linspace(0, 1, 21))


def test_legend_names_methods_as_they_come_and_explains_dashed_and_grey() -> None:
    ax = plots.deficit_curves(curves(["b", "a", "c"]), random_orders(), orders=20)
    assert labels_of(ax) == [
        "b",
        "a",
        "c",
        "reverse order:\nleast important first",
        "20 random orders and\nreverses: median, 5 to 95 %",
    ]


@pytest.mark.parametrize("methods", [1, 12, 30])
def test_legend_does_not_cover_the_curves(methods: int) -> None:
    ax = plots.deficit_curves(curves([f"method {i}" for i in range(methods)]), random_orders())
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1


def test_legend_says_nothing_of_what_is_not_drawn() -> None:
    assert labels_of(plots.deficit_curves(curves(["a"], directions=("descending",)))) == ["a"]
    assert plots.deficit_curves(curves(["a"]), legend=False).get_legend() is None


def test_random_orders_are_a_band_and_its_median() -> None:
    random = random_orders()
    ax = plots.deficit_curves(curves(["a"]), random)
    thick = max(ax.lines, key=lambda line: line.get_linewidth())
    np.testing.assert_array_equal(thick.get_ydata(), random["median"])
    assert ax.collections[-1].get_facecolor()[0].tolist() == list(mpl.colors.to_rgba(plots.BAND))


@pytest.mark.parametrize("size", [(3.5, 6.0), (4.2, 5.5), (9.0, 5.0), (14.0, 5.0)])
def test_legend_stands_beside_or_below_the_curves_and_inside_the_picture(size: tuple[float, float]) -> None:
    figure = Figure(figsize=size, layout="constrained")
    ax = plots.deficit_curves(curves(["a", "b", "c"]), random_orders(), orders=20, top=2, ax=figure.subplots())
    figure.draw_without_rendering()
    legend, axes, labels = (part.get_window_extent() for part in (ax.get_legend(), ax, ax.xaxis.label))
    assert legend.x0 >= axes.x1 or legend.y1 <= labels.y0
    assert legend.y0 >= 0
    assert axes.height > 0.25 * figure.bbox.height


def test_many_equal_curves_are_counted() -> None:
    frame = pd.concat([curves(["a"]).assign(method=f"m{k}") for k in range(8)])
    assert labels_of(plots.deficit_curves(frame))[0] == "m0\n= m1\n= m2\n= m3\n= m4\n= 3 more methods"


@pytest.mark.parametrize("methods", [2, 12, 40])
def test_no_two_methods_look_alike(methods: int) -> None:
    ax = plots.deficit_curves(curves([f"method {i}" for i in range(methods)]))
    looks = [(line.get_color(), line.get_marker()) for line in ax.lines if line.get_linestyle() == "-"]
    assert len(set(looks)) == methods


def _lab(colour: str, seen: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of a colour as it is seen, from linear sRGB."""
    rgb = np.array(mpl.colors.to_rgb(colour))
    linear = np.clip(seen @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ linear / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize(
    ("seen", "least"),
    [
        (np.eye(3), 26),
        (
            [
                [0.152286, 1.052583, -0.204868],
                [0.114503, 0.786281, 0.099216],
                [-0.003882, -0.048116, 1.051998],
            ],
            15,
        ),
        (
            [
                [0.367322, 0.860646, -0.227968],
                [0.280085, 0.672501, 0.047413],
                [-0.011820, 0.042940, 0.968881],
            ],
            15,
        ),
    ],
    ids=["normal", "protanopia", "deuteranopia"],
)
def test_colours_differ_for_colour_blind_readers(seen: list[list[float]], least: float) -> None:
    """Matrices of Machado, Oliveira and Fernandes (2009), severity 1."""
    seen_colours = [_lab(colour, np.array(seen)) for colour in plots.COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen_colours, 2)) >= least


def test_bands_may_be_missing() -> None:  # passes if nothing is raised
    frame = curves(["a", "b"]).assign(low=np.nan, high=np.nan)
    plots.deficit_curves(frame).figure.canvas.draw()


def test_titles_say_how_to_read_the_picture() -> None:
    ax = plots.deficit_curves(curves(["a"]), title="layer3", metric="log_likelihood")
    assert ax.get_title(loc="left") == "layer3"
    assert "area between a method's dashed and solid curve = its gap" in ax.texts[0].get_text()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("units ablated (fraction)", "log likelihood")
    assert plots.deficit_curves(curves(["a"])).get_title(loc="left")


def test_axes_passed_in_are_used_and_no_figure_or_setting_is_left() -> None:
    ax = Figure().subplots()
    settings, backend = dict(mpl.rcParams), mpl.get_backend()
    assert plots.deficit_curves(curves(["a"]), random_orders(), ax=ax) is ax
    assert plt.get_fignums() == []
    assert (dict(mpl.rcParams), mpl.get_backend()) == (settings, backend)


def leaderboard() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "method": ["best", "middle", "worst"],
            "gap": [0.2, 0.1, -0.05],
            "gap_low": [0.15, 0.05, np.nan],
            "gap_high": [0.26, 0.14, np.nan],
        }
    )


def test_leaderboard_bars_keep_the_order_best_on_top() -> None:
    ax = plots.leaderboard_bars(leaderboard())
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["best", "middle", "worst"]
    bottom, top = ax.get_ylim()
    assert top < 0 < 2 < bottom
    ax.figure.canvas.draw()


def test_leaderboard_bars_span_the_intervals() -> None:
    ax = plots.leaderboard_bars(leaderboard(), Figure().subplots())
    spans = [segment[:, 0] for segment in ax.collections[0].get_segments() if len(segment)]
    np.testing.assert_allclose(spans[:2], [[0.15, 0.26], [0.05, 0.14]])
    assert plt.get_fignums() == []
