"""Every run that the benchmarks time gives the same numbers."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

pytest.importorskip("benchmarks", reason="the benchmarks are not beside the tests")

from benchmarks import page, rivals, shapley
from benchmarks.growth import exponent
from benchmarks.memory import BATCH, CLASSES, UNITS, Noise, network
from benchmarks.side_by_side import geometric_mean, in_turns, keep
from benchmarks.tables import markdown
from benchmarks.units import captums
from captum_ablate import LayerUnitAblation


@pytest.fixture
def question():
    """Twelve images through a small net with a batch norm of six channels inside."""
    model = nn.Sequential()
    for name, module in {
        "conv1": nn.Conv2d(3, 6, 3),
        "bn1": nn.BatchNorm2d(6),
        "relu": nn.ReLU(),
        "conv2": nn.Conv2d(6, 5, 3),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(),
        "fc": nn.Linear(5, 4),
    }.items():
        model.add_module(name, module)
    nn.init.normal_(model.bn1.bias)
    model.eval().requires_grad_(False)
    x = torch.randn(12, 3, 8, 8)
    model.fc.bias -= model(x).mean(dim=0)  # else all images get the same class
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 4
    return rivals.Question(model, "bn1", torch.randperm(6), [0, 2, 3, 6], x, y)


@pytest.mark.parametrize("name", [name for name in rivals.RIVALS if rivals._installed(name)])
def test_every_rival_that_is_installed_measures_the_curve_of_the_hook_loop(question, name):
    before = {key: value.clone() for key, value in question.model.state_dict().items()}
    found = rivals.RIVALS[name](question)

    np.testing.assert_allclose(found, rivals.hooks(question), atol=1e-6)
    assert found[0] != found[len(found) // 2 - 1], "a curve that is flat proves nothing"
    after = question.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_captums_mask_of_channels_gives_our_single_units(question):
    model, layer, batches = (
        question.model,
        question.layer,
        [(question.x[:8], question.y[:8]), (question.x[8:], question.y[8:])],
    )
    expected = captums(model, layer, batches, torch.arange(6).reshape(1, 6, 1, 1))
    found = LayerUnitAblation(model, layer, metric="logit").attribute(batches)

    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)
    assert expected.abs().max() > 0.01


def test_shapley_values_are_held_against_the_hook_loop(monkeypatch, tmp_path):
    case = shapley.Perceptron("perceptron 784-128-64-10", "relu1")
    monkeypatch.setattr(shapley, "CASES", {case: (2, 12)})
    shapley.main(["--rounds", "1", "--batch", "6", "--out", str(tmp_path / "shapley.csv")])
    (row,) = pd.read_csv(tmp_path / "shapley.csv").to_dict("records")
    assert 25_000 < row["masks"] < 25_600
    assert row["largest difference"] < 1e-5
    assert row["ratio"] > 0


def test_the_exponent_of_a_power_law_is_found_with_its_interval():
    sizes = np.array([1, 2, 4, 8, 16.0])
    value, low, high = exponent(sizes, 3 * sizes**0.7)
    assert value == pytest.approx(0.7)
    noisy = 3 * sizes**0.7 * np.array([1.1, 0.9, 1.05, 0.95, 1.0])
    value, low, high = exponent(sizes, noisy)
    assert low < 0.7 < high
    assert high - low > 0.05


def test_runs_take_turns():
    asked = []
    times, results = in_turns(2, {"a": lambda: asked.append("a") or 1, "b": lambda: asked.append("b") or 2})
    assert asked == ["a", "b", "a", "b"]
    assert results == {"a": 1, "b": 2}
    assert {name: len(taken) for name, taken in times.items()} == {"a": 2, "b": 2}


def test_noise_can_be_iterated_again_and_fits_the_network():
    data = Noise(2 * BATCH)
    first, again = list(data), list(data)
    assert len(first) == 2
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    model = network()
    assert model(first[0][0]).shape == (BATCH, CLASSES)
    assert model[2].out_channels == UNITS


def test_a_table_takes_the_place_of_the_one_before_and_nothing_else_changes():
    text = "a\n<!-- curves -->\nold\n<!-- end -->\nb\n<!-- units -->\n<!-- end -->\n"
    once = page.fill(text, "curves", "| new |")
    assert once == text.replace("old", "| new |")
    assert page.fill(once, "units", "x").count("x") == 1
    with pytest.raises(ValueError, match="needs a line <!-- rivals -->"):
        page.fill(text, "rivals", "x")


def test_rows_are_kept_by_their_key_and_drawn(tmp_path):
    file = tmp_path / "curves.csv"
    rows = [{"network": "resnet18", "layer": f"layer{k}", "ratio": float(k), "setting": "few"} for k in (1, 2)]
    keep(rows, ["network", "layer"], file)
    keep([{**rows[0], "ratio": 8.0}], ["network", "layer"], file)
    table = pd.read_csv(file)

    assert sorted(table["ratio"]) == [2.0, 8.0]
    assert "Geometric mean 4.0x, from 2x to 8x." in page.text_of("curves", table)
    figure, axes = plt.subplots()
    page.draw({"curves": table, "units": table}, axes)
    assert {label.get_text() for label in axes.get_yticklabels()} == {"ResNet-18 layer1", "ResNet-18 layer2"}
    assert len(axes.patches) == 4
    plt.close(figure)


def test_rows_of_the_ten_cases_come_in_their_order():
    rows = pd.DataFrame({"network": ["vgg11", "other", "resnet18"], "layer": ["features.18", "x", "conv1"]})
    assert list(page.in_order(rows)["network"]) == ["resnet18", "vgg11", "other"]


def test_tables_and_means():
    table = markdown(pd.DataFrame({"a": ["x"], "b": [1.23456], "c": [7]}))
    assert table == "| a | b | c |\n| --- | --- | --- |\n| x | 1.23 | 7 |"
    assert "| 1,170 |" in markdown(pd.DataFrame({"seconds": [1170.4]}))
    assert geometric_mean(pd.Series([2.0, 8.0])) == pytest.approx(4.0)
