"""A suffix narrowed to the tokens that are read equals the suffix as captured."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

import pytest
import torch
import torchvision
from graphs import Captured
from test_token_models import HEADS, KINDS, PICKS, TOKENS, WIDTH, FirstSample, Joined, Transformer
from torch import Tensor, fx, nn
from torch.nn.functional import scaled_dot_product_attention

from captum_ablate.ablation.graph import ROWS, name_of, piece, shape_of
from captum_ablate.ablation.one_query import ATTENTION, attend
from captum_ablate.ablation.tokens import Position, narrow
from captum_ablate.inputs.units import UnitAxis

cut = partial(piece, rows=ROWS)


def check(model: nn.Module, layer: str, x: Tensor) -> tuple[bool, fx.GraphModule, fx.GraphModule]:
    """Compare the outputs for the intact activation; return whether it was narrowed, and both pieces."""
    model = model.eval()
    net = Captured.of(model, layer, x, UnitAxis(-1))
    graph, given = net.graph, [*net.graph.sites, *net.graph.inputs]
    plain, part = (cut(graph.root, graph.nodes, given, graph.results) for _ in range(2))
    has_changed, nodes = narrow(part), list(part.graph.nodes)
    places = [node for node in nodes if node.op == "placeholder"]
    for n in (len(x), 1):
        own = piece(part, nodes, places, nodes[-1].args[0], n)
        with torch.no_grad():
            [found], expected = own(net.activation[:n], x[:n]), model(x[:n])
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * float(expected.abs().max()))
    return has_changed, plain, part


def attentions(part: fx.GraphModule) -> list[str]:
    return [name_of(node) for node in part.graph.nodes if name_of(node) in ATTENTION or node.target is attend]


def rows(part: fx.GraphModule) -> int:
    """Return over how many rows linear maps run, for one sample."""
    return sum(prod(shape_of(node)[:-1]) for node in part.graph.nodes if name_of(node) in ("mm", "addmm"))


@pytest.mark.parametrize("layer", ["blocks.0.mlp", "blocks.1.mlp.0"])
@pytest.mark.parametrize("pick", PICKS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_narrowed_suffix_equals_the_plain_one(kind: str, pick: str, layer: str) -> None:
    torch.manual_seed(0)
    has_changed, plain, part = check(Transformer(kind, pick), layer, torch.randn(3, TOKENS, WIDTH))
    if pick in ("two tokens", "the mean"):
        assert not has_changed
    else:
        assert rows(part) < rows(plain)
    if layer == "blocks.0.mlp" and pick == "first":
        last = attentions(part)[-1:]
        assert last == ([] if kind == "by hand" else [""] if kind in ("module", "fused", "apart") else [ATTENTION[0]])


def test_the_last_block_of_torchvisions_transformer_has_one_query() -> None:
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 3, 4, 16, 32, num_classes=5).eval()
    nn.init.normal_(model.heads.head.weight)
    has_changed, _, part = check(model, "encoder.layers.encoder_layer_1.mlp", torch.randn(4, 3, 32, 32))
    assert has_changed
    assert attentions(part) == [ATTENTION[0], ATTENTION[0], ""]
    last = list(part.graph.nodes)[-20:]
    assert all(shape_of(node)[0] == 1 for node in last if name_of(node) == "addmm")


@pytest.mark.parametrize(("make", "shape"), [(FirstSample, (WIDTH,)), (Joined, (TOKENS, WIDTH))])
def test_samples_and_tokens_are_told_apart(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    has_changed, *_ = check(make(), "layer", torch.randn(3, *shape))
    assert has_changed == (make is Joined)


def test_half_precision_is_left_as_it_is() -> None:
    torch.manual_seed(0)
    net = Captured.of(
        Transformer("fused", "first").eval().bfloat16(),
        "blocks.0.mlp",
        torch.randn(2, TOKENS, WIDTH).bfloat16(),
        UnitAxis(-1),
    )
    graph = net.graph
    assert not narrow(cut(graph.root, graph.nodes, [*graph.sites, *graph.inputs], graph.results))


class Unusual(nn.Module):
    """Attention whose keys are no linear map of tokens, or not of each alone."""

    def __init__(self, key: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.key, self.head = key, nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x).tanh()
        q, k, v = (
            one.unflatten(-1, (HEADS, -1)).transpose(1, 2) for one in (self.q(x), self.key(self.k(x)), self.v(x))
        )
        out = scaled_dot_product_attention(q, k, v, scale=0.3)
        return self.head(out.transpose(1, 2).flatten(2)[:, 0])


@pytest.mark.parametrize(
    ("key", "is_map"),
    [
        (lambda k: k, True),
        (lambda k: k + torch.ones(WIDTH), True),
        (lambda k: k + torch.arange(float(TOKENS))[:, None], False),
        (lambda k: k.relu(), False),
        (lambda k: k.flip(1), False),
        (lambda k: k.transpose(1, 2).reshape(k.shape), False),
        (lambda k: k + k.mean(1, keepdim=True), False),
    ],
)
def test_only_linear_maps_of_each_token_are_left_out(key: Callable[[Tensor], Tensor], is_map: bool) -> None:
    torch.manual_seed(0)
    _, _, part = check(Unusual(key), "layer", torch.randn(3, TOKENS, WIDTH))
    assert attentions(part) == ([""] if is_map else [ATTENTION[0]])


def test_a_position_is_found_in_joined_axes() -> None:
    position = Position(3, 5, 2)
    assert position.left((3, 5, 7)) == [3, 1, 7]
    assert position.left((15, 7)) == [3, 7]
    assert position.place((15, 7)) == (0, 3, 1)
    assert position.place((3, 35)) == (1, 1, 7)
    assert position.place((105,)) is None
