"""Redundancy in closed form: units that add up, units that stand in for each other, units that need each other."""

from __future__ import annotations

from typing import ClassVar

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_ablate import CumulativeAblationEvaluator, LayerUnitAblation
from captum_ablate.studies import redundancy


class Gate(nn.Module):
    """``units`` shows the bits; class 1 wins where ``rule`` of them is above 0.5."""

    rules: ClassVar = {"or": lambda bits: bits.amax(1), "and": lambda bits: bits.amin(1), "sum": lambda b: b.sum(1)}

    def __init__(self, rule: str) -> None:
        super().__init__()
        self.units, self.rule = nn.Identity(), rule

    def forward(self, bits: Tensor) -> Tensor:
        value = self.rules[self.rule](self.units(bits))
        return torch.stack([torch.full_like(value, 0.5), value], dim=1)


def measured(rule: str, bits: Tensor, target: Tensor, metric: str = "accuracy", floor: float | None = None):
    model = Gate(rule).eval()
    evaluator = CumulativeAblationEvaluator(model, "units", metric=metric, steps=None, n_random=0)
    curve = evaluator.evaluate(torch.arange(bits.shape[1], 0, -1.0), (bits, target))
    single = LayerUnitAblation(model, "units", metric=metric).attribute(bits, target=target)
    return redundancy(curve, single, floor=floor)


def test_units_that_add_up_are_neither_redundant_nor_joint():
    bits = torch.rand(20, 5)
    found = measured("sum", bits, torch.ones(20, dtype=torch.int64).index_fill(0, torch.tensor([0]), 0), "logit", -99.0)
    np.testing.assert_allclose(found.predicted, found.score, atol=1e-6)
    assert found.value == pytest.approx(0, abs=1e-6)


def test_copies_are_redundant():
    bits = torch.tensor([[1.0] * 4, [0.0] * 4] * 5)  # four copies of the class, any of which is enough
    found = measured("or", bits, torch.tensor([1, 0] * 5))
    assert found.score.tolist() == [1, 1, 1, 1, 0.5]
    assert found.predicted.tolist() == [1, 1, 1, 1, 1]
    assert found.value == pytest.approx(0.5 * 0.25 / 2)


def test_units_that_need_each_other_are_joint():
    bits = torch.tensor([[1.0] * 4, [0.0] * 4] * 5)  # every one of the four is needed
    found = measured("and", bits, torch.tensor([1, 0] * 5), floor=-1.0)
    assert found.score.tolist() == [1, 0.5, 0.5, 0.5, 0.5]
    assert found.predicted.tolist() == [1, 0.5, 0, -0.5, -1]
    assert found.value == pytest.approx(-(0.25 * (0.5 + 1.0 + 1.5 / 2)))
    floored = measured("and", bits, torch.tensor([1, 0] * 5))  # at chance with its first unit, as predicted
    assert floored.value == pytest.approx(0)


def test_by_accuracy_units_that_only_add_up_have_a_value_too_which_is_said():
    generator = torch.Generator().manual_seed(0)
    bits = torch.rand(300, 12, generator=generator)
    model = nn.Sequential(nn.Identity(), nn.Linear(12, 3)).eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(3, 12, generator=generator))
        model[1].bias.zero_()
        target = model(bits).argmax(1)
    values = {}
    for metric in ("accuracy", "logit"):
        evaluator = CumulativeAblationEvaluator(model, "0", metric=metric, steps=None, n_random=0)
        curve = evaluator.evaluate(torch.rand(12, generator=generator), (bits, target))
        single = LayerUnitAblation(model, "0", metric=metric).attribute(bits, target=target)
        values[metric] = redundancy(curve, single, floor=None if metric == "accuracy" else -99.0)
    assert abs(values["logit"].value) < 1e-5
    assert abs(values["accuracy"].value) > 0.1
    assert "by accuracy the sign alone is no evidence" in repr(values["accuracy"])
    assert "no evidence" not in repr(values["logit"])


def test_the_prediction_equals_a_plain_sum(digits_net, small_digits):
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3", steps=7, n_random=0)
    scores = torch.rand(24)
    curve = evaluator.evaluate(scores, small_digits)
    deficits = LayerUnitAblation(digits_net, "relu3", metric="accuracy").attribute(
        small_digits[0], target=small_digits[1]
    )
    found = redundancy(curve, deficits)
    live = set(curve.order.tolist())
    order = [unit for unit in np.argsort(-scores.numpy()) if unit in live]
    for step, count in enumerate(curve.n_ablated.tolist()):
        plain = curve.score[0].item() - sum(deficits[u].item() for u in order[:count])
        assert found.predicted[step].item() == pytest.approx(max(plain, curve.score[-1].item()))
    frame = found.to_frame()
    area = 0.0
    for k in range(len(frame) - 1):
        width = frame["fraction"][k + 1] - frame["fraction"][k]
        area += width * sum(frame["predicted"][j] - frame["score"][j] for j in (k, k + 1)) / 2
    assert found.value == pytest.approx(area)


def test_the_picture_names_the_metric(digits_net, small_digits):
    curve = CumulativeAblationEvaluator(digits_net, "relu3", metric="log_likelihood", n_random=0).evaluate(
        torch.rand(24), small_digits
    )
    ax = redundancy(curve, torch.zeros(24)).plot()
    assert ax.get_ylabel() == "log likelihood"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["measured", "single deficits added up"]
    plt.close("all")


def test_deficits_of_another_layer_are_refused(digits_net, small_digits):
    curve = CumulativeAblationEvaluator(digits_net, "relu3", n_random=0).evaluate(torch.rand(24), small_digits)
    with pytest.raises(ValueError, match=r"one value for each of the 24 units of the curve; got shape \(16,\)"):
        redundancy(curve, torch.zeros(16))
    with pytest.raises(ValueError, match="must be finite"):
        redundancy(curve, torch.full((24,), torch.nan))
