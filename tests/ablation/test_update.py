"""An affine operator updated from mask to mask equals the operator computed anew."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from graphs import Captured, built
from hypothesis import given, settings
from hypothesis import strategies as st
from test_separate import ENDS, Part, images, sequence
from torch import Tensor, nn

from captum_ablate.ablation.graph import name_of
from captum_ablate.ablation.separate import separated
from captum_ablate.ablation.update import ANCHOR, Affine, Walk, affine_operators
from captum_ablate.inputs.units import UnitAxis

AFFINE: dict[str, Part] = {
    "convolution": lambda m, a, h: m.conv(a),
    "without bias": lambda m, a, h: m.conv2(a.relu()),
    "depthwise before": lambda m, a, h: m.conv(m.depthwise(a)[:, 3:11]),
    "two branches": lambda m, a, h: m.conv(a) + m.conv2(a),
    "joined with the prefix": lambda m, a, h: m.conv(torch.cat([h[:, :2], a[:, 2:]], 1)),
    "linear after pooling": lambda m, a, h: m.linear(a.mean((2, 3)))[..., None, None],
    "linear of places": lambda m, a, h: m.linear(a.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous(),
}


def found(net: Captured) -> list[Affine]:
    owners = separated(net.graph.nodes, net.start, net.owner)
    return affine_operators(net.graph.root, net.graph.nodes, owners)


def check(net: Captured, reference: Tensor, counts: list[int], back: bool, seed: int = 0) -> list[Affine]:
    """Walk along a chain of masks, and compare each result with the plain graph's."""
    affine = found(net)
    order = torch.randperm(net.units, generator=torch.Generator().manual_seed(seed))
    replaced = net.replaced(reference)
    for one in affine:
        walk = Walk(one, *(net.values([one.source], site)[0] for site in (net.activation, replaced)))
        value, mask = walk.start(ablated=back), torch.full((net.units,), back)
        for last, count in zip([net.units if back else 0, *counts], [*counts, None], strict=True):
            [plain] = net.values([one.node], net.ablated(mask, replaced))
            torch.testing.assert_close(value, plain, rtol=2e-6, atol=2e-6 * float(plain.abs().max()))
            if count is not None:
                units = order[min(last, count) : max(last, count)]
                mask[units] = not back
                value = walk.move(units, mask, back=back)
    return affine


def captured(part: Part, axis: UnitAxis) -> Captured:
    return Captured.of(built(sequence(part, ENDS["pooled"])), "site", images(), axis)


@pytest.mark.parametrize("back", [True, False])
@pytest.mark.parametrize("name", AFFINE)
def test_a_walk_equals_the_plain_graph(name: str, back: bool) -> None:
    net = captured(AFFINE[name], UnitAxis(1))
    counts = [7, 5, 4, 4, 1, 0] if back else [1, 2, 6, 8]
    affine = check(net, torch.linspace(-1, 1, 8)[net.owner], counts, back)
    assert len(affine) == (2 if name == "two branches" else 1)


def test_units_of_several_channels_and_of_none() -> None:
    for groups in ((0, 0, 1, 1, 2, 2, 3, 3), (0, 3, 1, 2, 2, 2, 0, 4)):
        check(captured(AFFINE["convolution"], UnitAxis(1, groups)), torch.tensor(0.3), [4, 3, 1, 0], back=True)
    first = captured(lambda m, a, h: F.conv2d(a[:, :3], m.conv.weight[:, :3]), UnitAxis(1))
    last = captured(lambda m, a, h: F.conv2d(a[:, 5:], m.conv.weight[:, :3]), UnitAxis(1))
    for net in (first, last):
        assert check(net, torch.tensor(0.3), [7, 6, 4, 2, 1, 0], back=True)


def test_elements_as_units() -> None:
    net = captured(lambda m, a, h: m.linear(a.flatten(1)[:, 20:28])[..., None, None], UnitAxis(None))
    assert check(net, torch.tensor(0.3), [250, 100, 20, 3, 0], back=True)


NOT_UPDATED: dict[str, Part] = {
    "grouped": lambda m, a, h: F.conv2d(a, m.conv.weight[:, :4], groups=2),
    "transposed": lambda m, a, h: F.conv_transpose2d(a, m.conv.weight),
    "weights of the prefix": lambda m, a, h: F.conv2d(a, m.conv.weight * h.mean()),
    "own product": lambda m, a, h: (a.flatten(2) @ a.flatten(2).transpose(1, 2))[..., None],
    "half precision": lambda m, a, h: F.conv2d(a.bfloat16(), m.conv.weight.bfloat16()).float(),
}


@pytest.mark.parametrize("name", NOT_UPDATED)
def test_what_is_not_updated(name: str) -> None:
    net = captured(lambda m, a, h: F.relu(NOT_UPDATED[name](m, a, h)), UnitAxis(1))
    assert not found(net)


def test_rounding_does_not_add_up() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 400), nn.ReLU(), nn.Linear(400, 5)).eval()
    net = Captured.of(model, "1", torch.randn(3, 4), UnitAxis(1))
    assert net.units > 2 * ANCHOR
    counts = list(range(399, -1, -1))
    assert [name_of(one.node) for one in check(net, torch.tensor(0.0), counts, back=True)] == ["addmm"]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    name=st.sampled_from([*AFFINE]),
    counts=st.lists(st.integers(0, 8), min_size=1, max_size=6).map(partial(sorted)),
    back=st.booleans(),
    seed=st.integers(0, 100),
)
def test_any_chain(name: str, counts: list[int], back: bool, seed: int) -> None:
    net = captured(AFFINE[name], UnitAxis(1))
    check(net, torch.linspace(-1, 1, 8)[net.owner], counts[::-1] if back else counts, back, seed)
