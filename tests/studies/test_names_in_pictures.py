"""Any text may name a method, a layer, a class or an axis in the pictures of studies and diagnostics."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from captum_ablate import CumulativeAblationEvaluator
from captum_ablate.diagnostics import level_slices, pictures
from captum_ablate.inputs.wording import visible
from captum_ablate.studies import layer_curves
from captum_ablate.studies.completeness import Completeness, plot_completeness
from captum_ablate.studies.deficit_correlation import DeficitCorrelation, plot_correlations
from captum_ablate.studies.division_of_labour import DivisionOfLabour, plot_labour
from captum_ablate.studies.feature_selection import FeatureSelection, plot_feature_selections
from captum_ablate.studies.heat_map import draw_excess
from captum_ablate.studies.rank_agreement import rank_agreement
from captum_ablate.studies.redundancy import redundancy
from captum_ablate.studies.units_to_flip import FlipCounts, plot_flips

NAME = st.text(st.characters(), max_size=40) | st.sampled_from(["$", "$x$", "_y", "", r"\frac{$1$", "z" * 200, "a\nb"])


@cache
def numbers() -> torch.Tensor:
    return torch.randn(8, 5, generator=torch.Generator().manual_seed(0))


def correlations(a: str, b: str) -> Any:
    one = DeficitCorrelation.of(numbers(), numbers() ** 2, name=a, layer=b, metric=a, reference=b)
    return plot_correlations({a: one, b: one})


def completeness(a: str, b: str) -> Any:
    one = Completeness(a, numbers()[0], numbers()[1])
    return plot_completeness({a: one, b: one})


def labour(a: str, b: str) -> Any:
    one = DivisionOfLabour(a, torch.tensor([3, 0, 1]), torch.tensor([1, 2, 3]), 4)
    return plot_labour({a: one, b: one})


def features(a: str, b: str) -> Any:
    one = FeatureSelection(a, (1, 2), numbers()[:2].sigmoid(), 4, 4, 0)
    return plot_feature_selections({a: one, b: one})


def flips(a: str, b: str) -> Any:
    labels = torch.arange(4) % 2
    one = FlipCounts(a, torch.tensor([1, 2, 3, 3]), labels == 1, labels, labels, 5, 3, (a, b), "zero")
    return plot_flips({a: one, b: one})


def agreement(a: str, b: str) -> Any:
    return rank_agreement(torch.arange(10.0), torch.arange(10.0).flip(0), top=0.2).plot(names=(a, b))


def excess(a: str, b: str) -> Any:
    _, ax = plt.subplots()
    edges = np.array([0.0, 1.0, 2.0])
    draw_excess(ax, edges, edges, {(0, 0): (0.1, 1), (1, 1): (-0.1, 2)}, layer=a, metric=b, subtitle=a)
    return ax


@cache
def curve() -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).eval()
    data = torch.randn(8, 4), torch.arange(8) % 2
    evaluator = CumulativeAblationEvaluator(model, "1", metric="logit", steps=None, n_random=0)
    return model, data, evaluator.evaluate(torch.rand(5), data)


def curves_of_layers(a: str, b: str) -> Any:
    model, data, _ = curve()
    methods = {name: lambda model, layer: torch.arange(5.0) for name in (a, b)}
    return layer_curves(model, ["1"], methods, data, pooled=False, steps=2, n_random=0).plot()


def spectrum(a: str, b: str) -> Any:
    frame = pd.DataFrame({"rank": [1, 2, 3], "eigenvalue": [3.0, 2.0, 1.0], "fitted": [3.0, 2.0, 1.0]})
    return pictures.spectrum(frame, title=a, subtitle=b, slope=1.0)


def levels(a: str, b: str) -> Any:
    slices = level_slices(numbers().flatten(), torch.arange(40) % 2, torch.arange(40) % 2, bins=3)
    return slices.plot([a, b], [b, a])


def groups(a: str, b: str) -> Any:
    columns = {"class": [a, b], "attribute": [b, a], "n": [1, 2], "accuracy": [0.5, 1.0]}
    return pictures.groups(pd.DataFrame({**columns, "low": [0.1, 0.2], "high": [0.9, 1.0]}), 0.7)


PICTURES = [
    correlations, completeness, labour, features, flips, agreement, excess, curves_of_layers, spectrum, levels, groups,
]  # fmt: skip


@pytest.mark.parametrize("picture", PICTURES)
@settings(max_examples=6, deadline=None)
@given(a=NAME, b=NAME)
@example(a="$a", b="b$")
@example(a="", b="_")
def test_any_name_can_be_drawn(picture: Callable[[str, str], Any], a: str, b: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        warnings.filterwarnings("ignore", ".*layout not applied")
        picture(a, b)
        plt.gcf().savefig("/dev/null", format="png", dpi=30)
    plt.close("all")


@pytest.mark.parametrize("picture", [completeness, labour, features, flips])
def test_legends_name_every_method_also_hidden_looking_ones(picture: Callable[[str, str], Any]) -> None:
    ax = picture("_private $5", "costs $x$")
    texts = [text.get_text().replace(r"\$", "$") for text in ax.get_legend().get_texts()]
    assert any(text.strip().startswith("_private $5") for text in texts)
    assert any(text.startswith("costs $x$") for text in texts)
    plt.close("all")


def test_rows_of_images_keep_their_two_lines() -> None:
    slices = level_slices(torch.linspace(0, 1, 20), torch.arange(20) % 2, bins=2)
    figure = slices.plot_images(torch.rand(20, 1, 4, 4), per_level=2)
    assert "\n(n = 10)" in figure.axes[0].get_ylabel()
    plt.close("all")


def test_redundancy_draws_any_metric() -> None:
    _, _, one = curve()
    found = redundancy(one, torch.rand(5))
    found.plot().figure.savefig("/dev/null", format="png", dpi=30)
    assert visible(found.metric) == "logit"
    plt.close("all")
