"""A piece with batch norm folded and channels-last memory equals the piece as captured."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graphs import Captured, built
from test_separate import ENDS, Part, images, sequence
from torch import nn

from captum_ablate.ablation.fold import fold, in_channels_last
from captum_ablate.ablation.graph import name_of, piece
from captum_ablate.inputs.units import UnitAxis

FOLDED: dict[str, Part] = {
    "with bias": lambda m, a, h: m.norm(m.conv(a)).relu(),
    "without bias": lambda m, a, h: m.norm(m.conv2(a)) + a,
    "depthwise": lambda m, a, h: m.norm(F.conv2d(a, m.depthwise.weight[:8], groups=8)),
    "without weights": lambda m, a, h: F.batch_norm(m.conv(a), m.norm.running_mean, m.norm.running_var),
    "twice": lambda m, a, h: m.norm(m.conv2(m.norm(m.conv(a)).relu())),
}
NOT_FOLDED: dict[str, Part] = {
    "read twice": lambda m, a, h: m.norm(c := m.conv(a)) + c,
    "of this batch": lambda m, a, h: F.batch_norm(m.conv(a), None, None, training=True),
    "transposed": lambda m, a, h: m.norm(F.conv_transpose2d(a, m.conv2.weight)),
    "norm alone": lambda m, a, h: m.norm(a.abs()),
    "of the prefix": lambda m, a, h: m.norm(F.conv2d(a, m.conv.weight * h.mean())),
    "half precision": lambda m, a, h: m.norm(F.conv2d(a.bfloat16(), m.conv.weight.bfloat16())).float(),
}


def pieces(part: Part) -> tuple[Captured, nn.Module, nn.Module]:
    """Return the suffix as captured, and rewritten."""
    model = built(sequence(part, ENDS["pooled"]))
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    net = Captured.of(model, "site", images(), UnitAxis(1))
    graph = net.graph
    plain, rewritten = (
        piece(graph.root, graph.nodes, [*graph.sites, *graph.inputs], graph.results, len(net.x)) for _ in range(2)
    )
    fold(rewritten)
    with torch.no_grad():
        plain_out, out = (one(net.activation, net.x)[0] for one in (plain, rewritten))
        laid_out = rewritten(in_channels_last(net.activation), net.x)[0]
        largest = float(plain_out.abs().max())
        torch.testing.assert_close(out, plain_out, rtol=0, atol=2e-6 * largest)
        torch.testing.assert_close(laid_out, plain_out, rtol=0, atol=2e-6 * largest)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert all(value.is_contiguous() for value in model.state_dict().values())
    return net, plain, rewritten


def norms(part: nn.Module) -> int:
    return sum("batch_norm" in name_of(node) for node in part.graph.nodes)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", FOLDED)
def test_batch_norm_is_folded(name: str) -> None:
    _, plain, rewritten = pieces(FOLDED[name])
    assert norms(plain) > norms(rewritten) == 0


@pytest.mark.parametrize("name", NOT_FOLDED)
def test_batch_norm_is_not_folded(name: str) -> None:
    _, plain, rewritten = pieces(NOT_FOLDED[name])
    assert norms(plain) == norms(rewritten) == 1


def test_half_precision_is_left_as_it_is() -> None:
    model = built(FOLDED["twice"]).bfloat16()
    net = Captured.of(model, "site", images().bfloat16(), UnitAxis(1))
    part = piece(net.graph.root, net.graph.nodes, [*net.graph.sites, *net.graph.inputs], net.graph.results, 3)
    assert not fold(part)
    assert norms(part) == 2
