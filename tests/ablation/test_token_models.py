"""Transformers whose outputs come from few tokens, or from all, equal full forward passes with a hook."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from engine_runs import Run, assert_close
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

WIDTH, TOKENS, HEADS = 12, 5, 4


class Attention(nn.Module):
    """Attention in one of several spellings."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.qkv, self.out = kind, nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.mha = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        if self.kind == "module":
            return self.mha(x, x, x, need_weights=False)[0]
        if self.kind == "fused":
            q, k, v = self.qkv(x).reshape(n, t, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = (one(x).view(n, t, HEADS, -1).transpose(1, 2) for one in (self.q, self.k, self.v))
        if self.kind == "by hand":
            share = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
            out = share @ v
        elif self.kind == "masked":
            out = scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(t, t).tril().bool())
        else:
            out = scaled_dot_product_attention(q, k, v, is_causal=self.kind == "causal")
        return self.out(out.transpose(1, 2).reshape(n, t, -1))


class Block(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.norm, self.attention, self.norm2 = nn.LayerNorm(WIDTH), Attention(kind), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 20), nn.GELU(), nn.Linear(20, WIDTH))
        self.scale = nn.Parameter(torch.rand(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        return x + self.scale * self.mlp(self.norm2(x))


PICKS: dict[str, Callable[[Tensor], Tensor]] = {
    "first": lambda x: x[:, 0],
    "last": lambda x: x[:, -1],
    "a slice": lambda x: x[:, 1:2].flatten(1),
    "the last slice": lambda x: x[:, -1:].squeeze(1),
    "two tokens": lambda x: x[:, 0] + x[:, 2],
    "the mean": lambda x: x.mean(1),
}


class Transformer(nn.Module):
    def __init__(self, kind: str, pick: str) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(kind), Block(kind))
        self.positions = nn.Parameter(torch.randn(1, TOKENS, WIDTH))
        self.norm, self.head, self.pick = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4), PICKS[pick]

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x) + self.positions.expand(len(x), -1, -1)
        return self.head(self.pick(self.norm(x)).tanh())


KINDS = ("module", "fused", "apart", "by hand", "causal", "masked")


@pytest.mark.parametrize("layer", ["blocks.0.mlp", "blocks.1.attention", "blocks.1.mlp.0"])
@pytest.mark.parametrize("pick", PICKS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_transformer_equals_full_passes(kind: str, pick: str, layer: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(7, TOKENS, WIDTH)
    run = Run(Transformer(kind, pick).eval(), layer, x, lambda a, t: 0.3 - a.flip(0), unit_dim=-1)
    assert run.check([4, 2, 1]).startswith("graph")


@pytest.mark.execution("narrowed, stacked")
@pytest.mark.parametrize("pick", ["first", "the last slice", "the mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_transformer_of_which_one_token_is_read_runs_on_it(kind: str, pick: str) -> None:
    torch.manual_seed(0)
    run = Run(Transformer(kind, pick).eval(), "blocks.0.mlp", torch.randn(7, TOKENS, WIDTH), unit_dim=-1)
    name = run.check([4, 2, 1])
    if name.startswith("graph"):
        assert ("read tokens only" in name) == (pick != "the mean")
    rows = torch.rand(7, run.units) < 0.5
    assert_close(run.outputs().outputs(rows), run.by_hook(run.batches()[0], rows), exact=False)


def test_torchvisions_transformer_equals_full_passes() -> None:
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 3, 4, 16, 32, num_classes=5).eval()
    nn.init.normal_(model.heads.head.weight)
    x = torch.randn(6, 3, 32, 32)
    for layer in ("encoder.layers.encoder_layer_0.mlp", "encoder.layers.encoder_layer_2.ln_2"):
        assert Run(model, layer, x, unit_dim=-1).check([4, 2]).startswith("graph")


class FirstSample(nn.Module):
    """The first sample of a batch is not the first token of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(WIDTH, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.layer(x).tanh())
        return x - x[0]


class Joined(nn.Module):
    """One token is cut out of an axis that joins samples and tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.inner, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 9), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        joined = self.layer(x).reshape(-1, WIDTH).sin()
        return self.head(self.inner(joined).view(-1, TOKENS, 9)[:, 1].tanh())


@pytest.mark.parametrize("sizes", [(1, 1), (4,), (4, 3)])
@pytest.mark.parametrize(("make", "shape"), [(FirstSample, (WIDTH,)), (Joined, (TOKENS, WIDTH))])
def test_samples_and_tokens_are_told_apart(
    make: Callable[[], nn.Module], shape: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    Run(make().eval(), "layer", torch.randn(sum(sizes), *shape), unit_dim=-1).check(sizes)
