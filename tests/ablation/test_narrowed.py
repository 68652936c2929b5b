"""Tapes narrowed to the tokens that are read, against full forward passes with a hook."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from captum_ablate.ablation.hook_loop import full_forward, probe
from captum_ablate.ablation.narrowed import narrowed
from captum_ablate.ablation.plan import Chain, Plan
from captum_ablate.ablation.program import Program
from captum_ablate.ablation.recording import Recording, record
from captum_ablate.ablation.site import Site
from captum_ablate.ablation.strategy import Strategy
from captum_ablate.ablation.tape import Tape
from captum_ablate.ablation.weights import Weights
from captum_ablate.inputs.batch import Batch
from captum_ablate.inputs.units import UnitAxis

WIDTH, TOKENS, HEADS = 12, 5, 4


class Attention(nn.Module):
    """Attention in one of several spellings. With ``causal`` or ``masked`` no query is narrowed."""

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


def opened(model: nn.Module, layer: str, x: Tensor) -> tuple[Site, Batch, Recording]:
    batch = Batch((x,), torch.zeros(len(x), dtype=torch.int64))
    site = Site(model.get_submodule(layer), layer, UnitAxis(-1))
    seen = probe(model, [site], batch)
    assert seen.path is not None
    with torch.no_grad():
        return site, batch, record(model, [site], batch, seen.path)


def check(model: nn.Module, layer: str, x: Tensor) -> tuple[Tape, Tape]:
    """Compare every mask of a plan, alone and stacked, with full passes; return the tape before and after narrowing."""
    site, batch, recording = opened(model, layer, x)
    assert isinstance(recording.tape, Tape), recording.tape
    units, reference = recording.activation.shape[-1], torch.randn(recording.activation.shape)
    plan = Plan.of([Chain(torch.randperm(units), tuple(range(1, units + 1, 2)))], units)
    for stack in (1, 3):
        strategy = Strategy(stack, narrowed=True)
        program = Program(recording.tape, [site], recording.activation, [reference], strategy, Weights())
        with torch.no_grad():
            for numbers, outputs in program.outputs(plan, range(len(plan))):
                for number, found in zip(numbers, outputs.split(len(x)), strict=True):
                    mask = plan.mask(number, torch.device("cpu"))
                    full = full_forward(model, [site], batch, [lambda a, m=mask: site.ablated(a, m, reference)])
                    torch.testing.assert_close(found, full, rtol=2e-6, atol=2e-6)
    return recording.tape, narrowed(recording.tape)


def made(tape: Tape) -> int:
    return sum(tape.specs[slot].shape.numel() for op in tape.ops for slot in op.outs if slot is not None)


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("layer", ["blocks.0.mlp", "blocks.1.attention", "blocks.1.mlp.0"])
@pytest.mark.parametrize("pick", PICKS)
@pytest.mark.parametrize("kind", ["module", "fused", "apart", "by hand", "causal", "masked"])
def test_a_narrowed_tape_equals_full_passes(kind: str, pick: str, layer: str, n: int) -> None:
    torch.manual_seed(0)
    before, after = check(Transformer(kind, pick).eval(), layer, torch.randn(n, TOKENS, WIDTH))
    if pick in ("two tokens", "the mean"):
        assert after is before
    else:
        assert made(after) < made(before)


def test_the_last_block_of_torchvisions_transformer_has_one_query() -> None:
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(32, 8, 3, 4, 16, 32, num_classes=5).eval()
    nn.init.normal_(model.heads.head.weight)
    before, after = check(model, "encoder.layers.encoder_layer_1.mlp", torch.randn(4, 3, 32, 32))
    assert "_native_multi_head_attention" in [op.name for op in before.ops]
    assert "_native_multi_head_attention" not in [op.name for op in after.ops]
    tokens = [op for op in after.ops if op.name in ("addmm", "linear", "gelu")]
    assert tokens
    assert all(after.specs[op.outs[0] or 0].shape[:-1].numel() == 4 for op in tokens)


def test_the_first_sample_is_not_taken_for_a_token() -> None:
    """The outputs of one sample of a batch are not a position of a sequence."""

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(WIDTH, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.head(self.layer(x).tanh())
            return x - x[0]

    torch.manual_seed(0)
    _, _, recording = opened(First().eval(), "layer", torch.randn(4, WIDTH))
    if isinstance(recording.tape, Tape):
        assert narrowed(recording.tape) is recording.tape


def test_a_position_is_found_in_joined_axes() -> None:
    from captum_ablate.ablation.narrowed import Position

    position = Position.at((3, 5, 7), 1, 2)
    assert position.left((3, 5, 7)) == [3, 1, 7]
    assert position.left((15, 7)) == [3, 7]
    assert position.axis((3, 35)) is None
    assert position.alone((15, 7)) is None
    whole = torch.arange(105).reshape(3, 5, 7)
    assert torch.equal(whole.reshape(15, 7)[2::5], whole[:, 2])


@pytest.mark.parametrize("n", [1, 4])
def test_one_token_is_cut_out_of_joined_axes(n: int) -> None:
    """An operator with a rule reads the result of one without, on tokens and samples joined in one axis."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.inner, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 9), nn.Linear(9, 4)

        def forward(self, x: Tensor) -> Tensor:
            joined = self.layer(x).reshape(-1, WIDTH).sin()
            return self.head(self.inner(joined).view(-1, TOKENS, 9)[:, 1].tanh())

    torch.manual_seed(0)
    before, after = check(Joined().eval(), "layer", torch.randn(n, TOKENS, WIDTH))
    assert made(after) < made(before)
