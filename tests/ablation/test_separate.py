"""Values whose units are apart equal the plain graph's, to the bit, for all masks together or one a sample."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from graphs import Captured, Net, built
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from captum_ablate.ablation.graph import name_of, needed
from captum_ablate.ablation.separate import Owners, frontier, mixed, separated
from captum_ablate.inputs.units import UnitAxis

SIDE, N = 6, 3

Part = Callable[[Net, Tensor, Tensor], Tensor]

APART: dict[str, Part] = {
    "relu": lambda m, a, h: a.relu(),
    "gelu, scaled": lambda m, a, h: F.gelu(a) * 0.3 - 1,
    "sigmoid, clamped": lambda m, a, h: a.sigmoid().clamp(0.6, 0.9),
    "prelu": lambda m, a, h: m.prelu(a),
    "batch norm": lambda m, a, h: m.norm(a),
    "depthwise": lambda m, a, h: m.depthwise(a)[:, ::2],
    "max pool": lambda m, a, h: F.max_pool2d(a, 3, 1, 1),
    "average": lambda m, a, h: F.avg_pool2d(a, 3, 1, 1),
    "adaptive max": lambda m, a, h: F.adaptive_max_pool2d(a, a.shape[-1]),
    "padded": lambda m, a, h: F.pad(a, (1, 0, 0, 1))[..., :-1, 1:] if a.shape[-1] > 1 else a,
    "reflected": lambda m, a, h: F.pad(a, (1, 0, 1, 0), mode="reflect")[..., 1:, 1:] if a.shape[-1] > 1 else a,
    "plus prefix": lambda m, a, h: a + h[..., : a.shape[-2], : a.shape[-1]],
    "over prefix": lambda m, a, h: a / (1 + h.mean((2, 3), keepdim=True).abs()),
    "where prefix": lambda m, a, h: torch.where(h.mean((2, 3), keepdim=True) > 0, a, -1.0),
    "twice": lambda m, a, h: a * a + a,
    "in place": lambda m, a, h: a.clone().add_(1).relu_(),
    "written into": lambda m, a, h: _written(a),
    "channels last and back": lambda m, a, h: a.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2).contiguous(),
    "rolled": lambda m, a, h: a.roll((1, 2), (1, 2)).flip(3),
    "shuffled": lambda m, a, h: F.channel_shuffle(a, 2),
    "halves swapped": lambda m, a, h: torch.cat(a.chunk(2, 1)[::-1], 1),
    "with prefix": lambda m, a, h: torch.cat([a, h[..., : a.shape[-2], : a.shape[-1]]], 1)[:, 2:10],
    "unbound": lambda m, a, h: torch.stack(a.unbind(1), 1),
    "masked": lambda m, a, h: a.masked_fill(a < 0.1, 0.5),
    "larger than a mean": lambda m, a, h: a * (a > a.mean((2, 3), keepdim=True)),
    "zeros": lambda m, a, h: torch.zeros_like(a).copy_(a),
}
"""Parts that act on each channel alone."""
TOGETHER: dict[str, Part] = {
    "convolution": lambda m, a, h: m.conv(a),
    "gate": lambda m, a, h: a * m.linear(a.mean((2, 3))).sigmoid()[..., None, None],
    "mean of channels": lambda m, a, h: a - a.mean(1, keepdim=True),
    "neighbours": lambda m, a, h: a * a.roll(1, 1),
    "centred": lambda m, a, h: a - a.mean(0),
    "samples flipped": lambda m, a, h: a.flip(0),
    "samples rolled": lambda m, a, h: a.roll(1, 0),
    "first sample": lambda m, a, h: a + a[:1],
    "samples joined": lambda m, a, h: torch.cat([a, a + 1], 0)[1 : len(a) + 1],
    "samples split": lambda m, a, h: torch.cat(a.split(1, 0)[::-1], 0) if len(a) < 5 else a.flip(0),
    "sum of samples": lambda m, a, h: a.cumsum(0),
    "places of pooling": lambda m, a, h: a + F.max_pool2d(a, 3, 1, 1, return_indices=True)[1],
}
"""Parts that mix units or samples."""
ENDS: dict[str, Part] = {
    "pooled": lambda m, a, h: m.linear(F.adaptive_avg_pool2d(a, 1).flatten(1)),
    "flat": lambda m, a, h: a.flatten(1),
    "tokens": lambda m, a, h: m.linear(a.flatten(2).transpose(1, 2)).mean(1),
    "windows": lambda m, a, h: m.linear(_windows(a)).mean((1, 2))[: len(h)],
    "split": lambda m, a, h: sum(part.mean((2, 3)) * k for k, part in enumerate(a.split(3, 1)[:2])),
}


def _written(a: Tensor) -> Tensor:
    out = torch.ones_like(a)
    out[:, 1:4] = a[:, 2:5]
    out[:, 0] = a[:, 7]
    return out


def _windows(a: Tensor) -> Tensor:
    """Return the quarters of each image as samples of their own, as Swin does."""
    n, c, h, w = a.shape
    return a.view(n, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 3, 5, 1).reshape(n * 4, h // 2, w // 2, c)


def sequence(*parts: Part) -> Part:
    def tail(m: Net, a: Tensor, h: Tensor) -> Tensor:
        for part in parts:
            a = part(m, a, h)
        return a

    return tail


def check(net: Captured, reference: Tensor, seed: int = 0) -> Owners:
    """Compare every separated value with the plain graph's, and return the owners."""
    owners = separated(net.graph.nodes, net.start, net.owner)
    single = [n for n in owners if isinstance(n.meta["val"], Tensor)]
    replaced = net.replaced(reference)
    intact, ablated = net.values(single, net.activation), net.values(single, replaced)
    random = torch.Generator().manual_seed(seed)
    masks = torch.rand(3, net.units, generator=random) < 0.5
    rows = torch.rand(len(net.x), net.units, generator=random) < 0.5
    plain = [net.values(single, net.ablated(mask, replaced)) for mask in masks]
    by_row = net.values(single, net.ablated(rows, replaced))
    for k, node in enumerate(single):
        found = mixed(owners[node], intact[k], ablated[k], masks)
        assert torch.equal(found.nan_to_num(7), torch.cat([one[k] for one in plain]).nan_to_num(7)), node.format_node()
        found = mixed(owners[node], intact[k], ablated[k], rows, by_row=True)
        assert torch.equal(found.nan_to_num(7), by_row[k].nan_to_num(7)), node.format_node()
    return owners


def images(side: int = SIDE) -> Tensor:
    return torch.randn(N, 3, side, side, generator=torch.Generator().manual_seed(1))


def captured(tail: Part, axis: UnitAxis | None = None) -> Captured:
    return Captured.of(built(tail), "site", images(), axis or UnitAxis(1))


REFERENCES: dict[str, Callable[[Captured], Tensor]] = {
    "zero": lambda net: torch.zeros(()),
    "of each unit": lambda net: torch.linspace(-1, 1, net.units)[net.owner],
    "of each sample": lambda net: net.activation.flip(0) - 0.2,
}


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("name", APART)
def test_parts_on_each_unit_alone_are_separated(name: str, reference: str) -> None:
    net = captured(sequence(APART[name], ENDS["pooled"]))
    owners = check(net, REFERENCES[reference](net))
    assert [name_of(n) for n in net.graph.nodes if name_of(n) == "addmm" and n not in owners]
    [front] = frontier(owners, needed(net.result))
    assert front.meta["val"].ndim == 2, "the mask should follow the pooling"


@pytest.mark.parametrize("name", TOGETHER)
def test_parts_that_mix_are_not_separated(name: str) -> None:
    net = captured(sequence(TOGETHER[name], ENDS["pooled"]))
    owners = check(net, torch.tensor(0.3))
    fronts = frontier(owners, needed(net.result))
    assert all(front.meta["val"].ndim == 4 or name == "gate" for front in fronts)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("unit_dim", [1, 2, -1, None])
def test_any_axis_of_units(unit_dim: int | None, end: str) -> None:
    for name in ("batch norm", "max pool", "rolled", "with prefix", "depthwise"):
        net = captured(sequence(APART["relu"], APART[name], ENDS[end]), UnitAxis(unit_dim))
        check(net, REFERENCES["of each sample"](net))


def test_groups_of_channels() -> None:
    net = captured(sequence(APART["depthwise"], ENDS["tokens"]), UnitAxis(1, (0, 0, 1, 2, 2, 1, 0, 1)))
    assert len(check(net, torch.tensor(0.3))) > 4


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    names=st.lists(st.sampled_from([*APART, *TOGETHER]), min_size=1, max_size=5),
    end=st.sampled_from([*ENDS]),
    unit_dim=st.sampled_from([1, 1, 1, 2, None]),
    reference=st.sampled_from([*REFERENCES]),
)
def test_any_sequence_of_parts(names: list[str], end: str, unit_dim: int | None, reference: str) -> None:
    parts = [(APART | TOGETHER)[name] for name in names]
    net = captured(sequence(*parts, ENDS[end]), UnitAxis(unit_dim))
    check(net, REFERENCES[reference](net))


def test_what_another_site_reaches_is_not_separated() -> None:
    net = captured(sequence(APART["relu"], APART["plus prefix"], APART["batch norm"], ENDS["pooled"]))
    prefix = next(n for n in net.graph.nodes if name_of(n) == "convolution")
    owners = separated(net.graph.nodes, net.start, net.owner, others=[prefix])
    assert [name_of(n) for n in owners] == ["", "relu"]
