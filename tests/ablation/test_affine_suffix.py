"""Suffixes proven affine have their closed form; all others are not proven."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graphs import Captured, built
from test_separate import ENDS, Part, images, sequence

from captum_ablate.ablation.closed_form import ClosedForm, has_equal_units, why_not_affine
from captum_ablate.ablation.plan import Chain, Plan
from captum_ablate.inputs.units import UnitAxis

AFFINE: dict[str, Part] = {
    "nothing": lambda m, a, h: a,
    "batch norm, convolutions": lambda m, a, h: m.norm(m.conv(a)) / 3 + m.conv2(a),
    "average": lambda m, a, h: F.avg_pool2d(a, 3, 1, 1),
    "plus prefix": lambda m, a, h: a * 0.5 - 1 + h.tanh(),
    "joined with the prefix": lambda m, a, h: torch.cat([h[:, :2], a[:, 2:]], 1),
    "places flipped": lambda m, a, h: a.flip(2).roll(1, 1),
    "in place": lambda m, a, h: a.clone().add_(1).neg_(),
    "tokens": lambda m, a, h: m.linear(a.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous(),
    "some written": lambda m, a, h: torch.slice_scatter(h, a[:, :5], 1, 0, 5),
}
NOT_AFFINE: dict[str, Part] = {
    "relu": lambda m, a, h: a.relu(),
    "square": lambda m, a, h: a * a,
    "own gate": lambda m, a, h: a * a.mean((2, 3), keepdim=True),
    "gate of the prefix": lambda m, a, h: a * h.sigmoid(),
    "over itself": lambda m, a, h: h / (1 + a),
    "numbered samples": lambda m, a, h: a * torch.ones(len(a)).cumsum(0)[:, None, None, None],
    "rounded": lambda m, a, h: a.half().float(),
    "whole": lambda m, a, h: a.long().float(),
    "centred": lambda m, a, h: a - a.mean(0),
    "samples flipped": lambda m, a, h: a.flip(0),
    "samples rolled": lambda m, a, h: a.roll(1, 0),
    "all rolled": lambda m, a, h: a.roll(1),
    "first sample": lambda m, a, h: a + a[:1],
    "batch norm of this batch": lambda m, a, h: F.batch_norm(a, None, None, training=True),
    "floor division": lambda m, a, h: torch.div(a, 0.1, rounding_mode="floor"),
    "where": lambda m, a, h: torch.where(a > 0.1, a, 0.0),
    "largest": lambda m, a, h: F.max_pool2d(a, 3, 1, 1),
    "own kernel": lambda m, a, h: F.conv2d(h, a[:1].expand(8, -1, -1, -1))[..., :1, :1] + a,
}


def captured(part: Part, end: str = "pooled", axis: UnitAxis | None = None) -> Captured:
    return Captured.of(built(sequence(part, ENDS[end])), "site", images(), axis or UnitAxis(1))


def check(net: Captured) -> None:
    """Compare the closed form at every step of three chains with the plain graph."""
    replaced = net.replaced(net.activation.flip(0) - 0.2)
    intact, ablated = (net.values([net.result], site)[0] for site in (net.activation, replaced))
    form = ClosedForm(lambda site: net.values([net.result], site)[0], net.activation, intact.shape[1], net.owner)
    torch.testing.assert_close(form.intact(net.activation, replaced, ablated), intact, rtol=0, atol=1e-5)
    units = net.units
    orders = [torch.randperm(units, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    chains = [
        Chain(orders[0], tuple(range(1, units + 1))),
        Chain(orders[1][: units - 1], (1, units - 1)),
        Chain(orders[2], (2,)),
    ]
    plan = Plan.of(chains, units)
    found = dict(form.outputs(net.activation, replaced, intact, ablated, plan))
    assert sorted(found) == list(range(len(plan)))
    for number, outputs in found.items():
        [plain] = net.values([net.result], net.ablated(plan.mask(number, torch.device("cpu")), replaced))
        torch.testing.assert_close(outputs, plain, rtol=0, atol=1e-5)


@pytest.mark.parametrize("end", ["pooled", "flat", "tokens", "split"])
@pytest.mark.parametrize("name", AFFINE)
def test_an_affine_suffix_has_a_closed_form(name: str, end: str) -> None:
    net = captured(AFFINE[name], end)
    assert why_not_affine(net.graph.nodes, net.start, net.result) is None
    check(net)


@pytest.mark.parametrize("name", NOT_AFFINE)
def test_look_alikes_have_none(name: str) -> None:
    net = captured(NOT_AFFINE[name])
    assert why_not_affine(net.graph.nodes, net.start, net.result) is not None


@pytest.mark.parametrize("axis", [UnitAxis(2), UnitAxis(-1), UnitAxis(None), UnitAxis(1, (0, 1, 2, 3, 3, 1, 0, 2))])
def test_any_units_of_equal_size(axis: UnitAxis) -> None:
    net = captured(AFFINE["batch norm, convolutions"], axis=axis)
    assert has_equal_units(net.owner, net.activation.shape)
    check(net)


def test_units_of_unequal_size_have_none() -> None:
    net = captured(AFFINE["nothing"], axis=UnitAxis(1, (0, 1, 2, 3, 3, 1, 0, 0)))
    assert not has_equal_units(net.owner, net.activation.shape)


def test_outputs_without_classes_have_none() -> None:
    net = captured(lambda m, a, h: a.mean(3)[..., None])
    assert why_not_affine(net.graph.nodes, net.start, net.result) is None
    whole = Captured.of(built(lambda m, a, h: a.mean(3)), "site", images(), UnitAxis(1))
    assert why_not_affine(whole.graph.nodes, whole.start, whole.result) == "the outputs are not [n, classes]"
