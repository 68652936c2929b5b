"""A curve against that of a network whose units only add up: laws, planted truth, and what the interval holds."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import oracles
import pytest
import torch
from torch import Tensor, nn

from captum_ablate import CumulativeAblationEvaluator, LayerUnitAblation
from captum_ablate.studies import additive_redundancy, redundancy


class Gate(nn.Module):
    """``units`` shows the bits; class 1 wins where their ``rule`` is above 0.5."""

    def __init__(self, rule) -> None:
        super().__init__()
        self.units, self.rule = nn.Identity(), rule

    def forward(self, bits: Tensor) -> Tensor:
        value = self.rule(self.units(bits))
        return torch.stack([torch.full_like(value, 0.5), value], dim=1)


def gate(rule, bits, target, metric="accuracy"):
    evaluator = CumulativeAblationEvaluator(Gate(rule).eval(), "units", metric=metric, steps=None, n_random=0)
    curve = evaluator.evaluate(torch.arange(bits.shape[1], 0, -1.0), (bits, target))
    return additive_redundancy(evaluator, curve, (bits, target))


BITS = torch.tensor([[1.0] * 4, [0.0] * 4] * 5)
TARGET = torch.tensor([1, 0] * 5)


def test_copies_are_redundant():
    found = gate(lambda bits: bits.amax(1), BITS, TARGET)  # alone, none of the four is missed
    assert found.score.tolist() == [1, 1, 1, 1, 0.5]
    assert found.additive.tolist() == [1, 1, 1, 1, 1]
    assert found.value == pytest.approx(0.5 * 0.25 / 2)


def test_units_that_need_each_other_are_joint():
    found = gate(lambda bits: bits.amin(1), BITS, TARGET, "logit")  # each alone is missed as much as all
    assert found.score.tolist() == [0.75, 0.25, 0.25, 0.25, 0.25]
    assert found.additive.tolist() == [0.75, 0.25, -0.25, -0.75, -1.25]
    assert found.value == pytest.approx(-0.25 * (0.5 + 1.0 + 1.5 / 2))


@pytest.mark.parametrize("metric", ["accuracy", "log_likelihood", "margin"])
@pytest.mark.parametrize("reference", ["zero", "mean"])
def test_where_units_add_up_the_two_networks_are_one_by_any_metric(digits_net, small_digits, metric, reference):
    """The last hidden layer. The prediction from added deficits is not: it reads as joint work or as redundancy."""
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3", metric=metric, reference=reference, n_random=0)
    curve = evaluator.evaluate(torch.rand(24, generator=torch.Generator().manual_seed(0)), small_digits)
    found = additive_redundancy(evaluator, curve, small_digits, batch_size=17)
    assert found.value == pytest.approx(0, abs=1e-5)
    single = LayerUnitAblation(digits_net, "relu3", metric=metric, reference=reference)
    predicted = redundancy(curve, single.attribute(small_digits[0], target=small_digits[1]))
    assert abs(predicted.value) > 0.02


def test_the_additive_curve_equals_a_plain_loop_of_full_passes(digits_net, small_digits):
    x, y = small_digits
    evaluator = CumulativeAblationEvaluator(digits_net, "relu1", reference="mean", steps=5, n_random=0)
    half = (x[: len(x) // 2], y[: len(x) // 2])
    curve = evaluator.evaluate(LayerUnitAblation(digits_net, "relu1"), small_digits, ranking_data=half)
    found = additive_redundancy(evaluator, curve, small_digits, ranking_data=half, batch_size=30)

    layer, kept = digits_net.get_submodule("relu1"), []
    handle = layer.register_forward_hook(lambda _, __, output: kept.append(output))
    with torch.no_grad():
        digits_net(half[0])
        handle.remove()
        pooled = kept[0].mean(dim=(0, *range(2, kept[0].ndim)))

        def without(unit):
            def replace(_, __, output):
                changed = output.clone()
                changed[:, unit] = pooled[unit]
                return changed

            handle = layer.register_forward_hook(replace)
            outputs = digits_net(x)
            handle.remove()
            return outputs.double()

        intact = digits_net(x).double()
        effects = {unit: intact - without(unit) for unit in curve.order.tolist()}
    for step, count in enumerate(curve.n_ablated.tolist()):
        outputs = intact - sum((effects[unit] for unit in curve.order[:count].tolist()), torch.zeros_like(intact))
        assert found.additive[step].item() == pytest.approx((outputs.argmax(1) == y).double().mean().item())
    frame, area = found.to_frame(), 0.0
    for k in range(len(frame) - 1):
        width = frame["fraction"][k + 1] - frame["fraction"][k]
        area += width * sum(frame["additive"][j] - frame["score"][j] for j in (k, k + 1)) / 2
    assert found.value == pytest.approx(area)
    assert found.interval == pytest.approx(oracles.bounded_interval(found.areas.tolist(), 1))


def test_several_layers_add_up_together(digits_net, small_digits):
    evaluator = CumulativeAblationEvaluator(digits_net, ["relu2", "relu3"], metric="logit", steps=4, n_random=0)
    curve = evaluator.evaluate([torch.rand(16), torch.rand(24)], small_digits)
    found = additive_redundancy(evaluator, curve, small_digits)
    single = LayerUnitAblation(digits_net, "relu2", metric="logit").attribute(small_digits[0], target=small_digits[1])
    last = LayerUnitAblation(digits_net, "relu3", metric="logit").attribute(small_digits[0], target=small_digits[1])
    deficits = torch.cat([single, last])
    gone = deficits[curve.order].cumsum(0)
    for step, count in enumerate(curve.n_ablated.tolist()[1:], start=1):
        assert found.additive[step].item() == pytest.approx(curve.score[0].item() - gone[count - 1].item(), abs=1e-4)


def test_the_interval_holds_the_value_of_all_samples(digits_net, digits):
    """Samples drawn again and again from those of a layer before the last, where units do not add up."""
    evaluator = CumulativeAblationEvaluator(digits_net, "relu2", n_random=0)
    curve = evaluator.evaluate(LayerUnitAblation(digits_net, "relu2"), digits)
    found = additive_redundancy(evaluator, curve, digits)
    assert abs(found.value) > 0.005
    rng, areas = np.random.default_rng(0), found.areas.numpy()
    for n in (50, 200):
        draws = [oracles.bounded_interval(rng.choice(areas, n).tolist(), 1) for _ in range(400)]
        assert np.mean([low <= areas.mean() <= high for low, high in draws]) > 0.92


def test_the_picture_and_the_print_have_the_interval(digits_net, small_digits):
    evaluator = CumulativeAblationEvaluator(digits_net, "relu2", metric="log_likelihood", n_random=0)
    curve = evaluator.evaluate(torch.rand(16), small_digits)
    found = additive_redundancy(evaluator, curve, small_digits)
    assert found.interval == pytest.approx(oracles.student_interval(found.areas.tolist()))
    low, high = found.interval
    ax = found.plot()
    assert f"[{low:+.3f}, {high:+.3f}]" in ax.get_title(loc="left")
    assert ax.get_ylabel() == "log likelihood"
    assert f"[{low:+.3f}, {high:+.3f}] by log_likelihood" in repr(found)
    plt.close("all")


def test_other_samples_are_refused(digits_net, small_digits):
    x, y = small_digits
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3", metric="margin", n_random=0)
    curve = evaluator.evaluate(torch.rand(24), small_digits)
    with pytest.raises(ValueError, match=rf"the {len(x)} samples that the curve was evaluated on.*; got 20 samples"):
        additive_redundancy(evaluator, curve, (x[:20], y[:20]))
    with pytest.raises(ValueError, match="got metrics that differ by up to"):
        additive_redundancy(evaluator, curve, (x.flip(0), y.flip(0)))
    order = torch.arange(len(y)).roll(1)
    evaluator = CumulativeAblationEvaluator(digits_net, "relu3", metric=lambda outputs, _: 0 * outputs[:, 0])
    curve = evaluator.evaluate(torch.rand(24), small_digits)
    with pytest.raises(ValueError, match="in the same order; got other targets"):  # the metric is that of any order
        additive_redundancy(evaluator, curve, (x[order], y[order]))
