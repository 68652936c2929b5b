"""A sample of torchvision's networks: the evaluator equals full forward passes with a plain hook."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
import torch
from torch import nn

pytest.importorskip("benchmarks.zoo", reason="the benchmarks are not installed with the tests")

from benchmarks.zoo import check, networks, report, sweep

FAST = ("squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5", "mobilenet_v3_small")
SLOW = ("regnet_y_400mf", "resnet18", "efficientnet_b0", "googlenet")
"""Residual and inception networks, whose families ``tests/ablation/test_families.py`` always runs."""


@pytest.mark.execution("closed form, update, stacked")
@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_ablated_outputs_equal_plain_hooks(name):
    rows = list(check.check(name))

    assert len(rows) == networks.LAYERS
    for row in rows:
        assert row.result in ("to the bit", "to 1e-5"), row
        assert row.execution.startswith(("graph", "closed form")), row
        assert row.effect > check.VISIBLE, f"an ablation without effect proves nothing: {row}"
        assert row.hooks_left == 0, row


def test_the_sweep_finds_a_wrong_evaluator(monkeypatch):
    evaluate = check.CumulativeAblationEvaluator.evaluate

    def wrong(self, scores, data):
        curve = evaluate(self, scores, data)
        values = curve.values.clone()
        values[1, 0] += 1e-3 * values.abs().max()
        return dataclasses.replace(curve, values=values)

    monkeypatch.setattr(check.CumulativeAblationEvaluator, "evaluate", wrong)
    model, x = networks.network("squeezenet1_1", 64)
    found = check._compare(model, x, networks.Layer("features.3", "Fire", 1), "zero", steps=2)

    assert found["result"] == "wrong"
    assert found["difference"] > 1e-4


def test_chosen_layers_run_once_and_spread_over_the_depth():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared, self.head = nn.ReLU(), nn.Linear(4, 3)
            self.convolutions = nn.ModuleList(nn.Conv2d(3 if k == 0 else 4, 4, 1) for k in range(8))

        def forward(self, x):
            for convolution in self.convolutions:
                x = self.shared(convolution(x))
            return self.head(x.mean((2, 3)))

    layers = networks.choose_layers(Net().eval(), torch.randn(2, 3, 5, 5))

    assert [layer.name for layer in layers] == [f"convolutions.{k}" for k in (0, 2, 4, 7)]
    assert {layer.unit_dim for layer in layers} == {1}


def test_a_stopped_sweep_resumes_where_it_was(tmp_path, monkeypatch, capsys):
    asked = []

    def checked(name, *, quick):
        assert not quick
        asked.append(name)
        yield check.Row(
            name, 1, 64, "layer", "Conv2d", result="to the bit", execution="graph", effect=1.0, difference=0.0
        )

    monkeypatch.setattr(sweep, "check", checked)
    monkeypatch.setattr(sweep, "size_of", lambda name: ({"alexnet": 2, "resnet18": 1, "vit_h_14": 10**12}[name], 64))
    first = sweep.sweep(["alexnet"], tmp_path / "zoo.csv", 1e6)
    both = sweep.sweep(["alexnet", "resnet18", "vit_h_14"], tmp_path / "zoo.csv", 5.0)

    assert asked == ["alexnet", "resnet18"]
    assert list(first.network) == ["alexnet"]
    assert both.set_index("network").result.to_dict() == {
        "alexnet": "to the bit",
        "resnet18": "to the bit",
        "vit_h_14": "not run",
    }
    assert "vit_h_14" in report.table_of(both)
    assert isinstance(both, pd.DataFrame)
