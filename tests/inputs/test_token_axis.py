"""Tokens that are taken for units are warned of in every entry, channels are not; so are heads after the projection."""

from __future__ import annotations

import warnings

import pytest
import torch
from captum.attr import LayerActivation, LayerConductance
from torch import nn

from captum_ablate import (
    CumulativeAblationEvaluator,
    LayerClassSelectivity,
    LayerMeanActivity,
    LayerTaylor,
    LayerUnitAblation,
    attribute_together,
    unit_scores,
)
from captum_ablate.diagnostics import activation_spectrum

pytestmark = pytest.mark.filterwarnings("ignore:.*full forward passes are used instead:UserWarning")


class Tokens(nn.Module):
    """Every kind of module that a network of tokens holds, whose types tell little."""

    def __init__(self):
        super().__init__()
        self.start, self.up, self.act, self.drop = nn.Identity(), nn.Linear(5, 8), nn.GELU(), nn.Dropout(0.1)
        self.own, self.norm, self.head = Own(), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.norm(self.own(self.drop(self.act(self.up(self.start(x)))))).mean(1))


class Own(nn.Module):
    def forward(self, x):
        return x * 2


class Channels(nn.Module):
    """A convolutional network over a sequence: the channels come first."""

    def __init__(self):
        super().__init__()
        self.start, self.conv, self.act, self.pool = nn.Identity(), nn.Conv1d(5, 8, 3), nn.ReLU(), nn.MaxPool1d(2)
        self.own, self.norm, self.head = Own(), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.norm(self.own(self.pool(self.act(self.conv(self.start(x)))))).mean(2))


class Both(nn.Module):
    """Convolutions, then tokens: modules on both sides of the transpose, and after pooling."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.turned = nn.Conv1d(5, 8, 3, padding=1), nn.ReLU(), nn.Identity()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.back, self.pooled, self.head = nn.Identity(), nn.Identity(), nn.Linear(8, 3)

    def forward(self, x):
        tokens = self.layer(self.turned(self.relu(self.conv(x)).transpose(1, 2)))
        return self.head(self.pooled(self.back(tokens.transpose(1, 2)).mean(2)))


TOKENS = [
    *((Tokens, name) for name in ("start", "up", "act", "drop", "own", "norm")),
    *((Both, name) for name in ("turned", "layer", "layer.dropout", "layer.linear2")),
]
CHANNELS = [
    *((Channels, name) for name in ("start", "conv", "act", "pool", "own", "norm")),
    *((Both, name) for name in ("conv", "relu", "back", "pooled")),
]


def batch(network):
    shape = (12, 7, 5) if network is Tokens else (12, 5, 7)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3


ENTRIES = {
    "statistic": lambda model, layer, x, y: LayerMeanActivity(model, layer).attribute(x, target=y),
    "together": lambda model, layer, x, y: attribute_together({"a": LayerClassSelectivity(model, layer)}, x, target=y),
    "unit ablation": lambda model, layer, x, y: LayerUnitAblation(model, layer).attribute(x, target=y),
    "gradients": lambda model, layer, x, y: LayerTaylor(model, layer).attribute(x, target=y),
    "unit scores": lambda model, layer, x, y: unit_scores(LayerActivation(model, model.get_submodule(layer)), (x, y)),
    "evaluator": lambda model, layer, x, y: CumulativeAblationEvaluator(model, layer, n_random=0).evaluate(
        LayerMeanActivity(model, layer), (x, y)
    ),
    "spectrum": lambda model, layer, x, y: activation_spectrum(model, layer, (x, y), replicates=0),
}


def warned(entry, network, layer):
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ENTRIES[entry](network().eval(), layer, *batch(network))
    return [str(w.message) for w in caught if "positions the units; pass unit_dim=-1" in str(w.message)]


@pytest.mark.parametrize(("network", "layer"), TOKENS, ids=str)
def test_tokens_are_warned_of(network, layer):
    (message, *_) = warned("statistic", network, layer)
    features = {"start": 5, "layer.dropout": 16}.get(layer, 8)
    assert f"makes its 7 positions the units; pass unit_dim=-1 for its {features} features" in message


@pytest.mark.parametrize(("network", "layer"), CHANNELS, ids=str)
def test_channels_are_not(network, layer):
    assert not warned("statistic", network, layer)


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_warns(entry):
    assert warned(entry, Tokens, "act")
    assert not warned(entry, Channels, "act")


def test_the_input_of_a_layer_is_looked_at_too():
    model, (x, y) = Tokens().eval(), batch(Tokens)
    with pytest.warns(UserWarning, match=r"with an input of shape .* makes its 7 positions the units"):
        LayerMeanActivity(model, "act").attribute(x, target=y, attribute_to_layer_input=True)
    with pytest.warns(UserWarning, match=r"with an input of shape .* makes its 7 positions the units"):
        CumulativeAblationEvaluator(model, "own", attribute_to_layer_input=True).evaluate(torch.rand(7), (x, y))


def test_the_model_is_left_without_hooks():
    model, (x, y) = Tokens().eval(), batch(Tokens)
    with pytest.warns(UserWarning, match="positions the units"):
        LayerMeanActivity(model, "act").attribute(x, target=y)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("unit_dim", [1, None])
@pytest.mark.parametrize(
    "score",
    [
        lambda m, d, u: LayerMeanActivity(m, "act", unit_dim=u).attribute(d),
        lambda m, d, u: LayerUnitAblation(m, "act", unit_dim=u).attribute(d),
        lambda m, d, u: LayerTaylor(m, "act", unit_dim=u).attribute(d),
        lambda m, d, u: unit_scores(LayerConductance(m, m.act), d, unit_dim=u),
        lambda m, d, u: activation_spectrum(m, "act", d, unit_dim=u),
        lambda m, d, u: CumulativeAblationEvaluator(m, "act", unit_dim=u).evaluate(torch.rand(6 if u else 48), d),
        lambda m, d, u: CumulativeAblationEvaluator(m, "act", unit_dim=u, reference="mean").evaluate(
            torch.rand(6 if u else 48), d
        ),
    ],
    ids=["statistic", "ablation", "gradients", "unit_scores", "spectrum", "evaluator", "mean"],
)
@pytest.mark.filterwarnings("ignore:.*positions the units:UserWarning")
def test_tokens_of_varying_number_are_refused_with_what_to_do(score, unit_dim):
    data = [(torch.randn(4, tokens, 5), torch.arange(4) % 3) for tokens in (6, 7, 5)]
    with pytest.raises(ValueError, match=r"number of units changes between batches.*unit_dim \(-1 for tokens"):
        score(Tokens().eval(), data, unit_dim)


class Attention(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.add_module(name, nn.Linear(12, 12))
        self.name = name

    def forward(self, x):
        return self.get_submodule(self.name)(x)


class Block(nn.Module):
    def __init__(self, name, **parts):
        super().__init__()
        for part, module in parts.items():
            self.add_module(part, module)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        for module in self.children():
            x = module(x)
        return x.mean(1)


HEADS = torch.arange(12) // 3
MIXED = [
    ({"attn": Attention("proj")}, "attn.proj"),
    ({"self_attention": Attention("out_proj")}, "self_attention.out_proj"),
    ({"inner": Attention("c_proj")}, "inner.c_proj"),
]
NOT_MIXED = [
    ({"attn": Attention("proj")}, "attn.proj", torch.arange(12) % 4),
    ({"attn": Attention("value")}, "attn.value", HEADS),
    ({"mlp": nn.Sequential(nn.Linear(12, 12))}, "mlp.0", HEADS),
]


def mean_of_heads(parts, layer, mask, **options):
    x, y = torch.randn(9, 4, 12), torch.arange(9) % 3
    LayerMeanActivity(Block("", **parts).eval(), layer, unit_dim=-1, layer_mask=mask).attribute(x, target=y, **options)


@pytest.mark.parametrize(("parts", "layer"), MIXED, ids=str)
def test_heads_at_the_output_of_a_projection_are_warned_of(parts, layer, recwarn):
    mean_of_heads(parts, layer, HEADS)
    assert "each of its channels mixes all heads" in str(recwarn.pop(UserWarning).message)
    mean_of_heads(parts, layer, HEADS, attribute_to_layer_input=True)
    assert not [w for w in recwarn if "mixes all heads" in str(w.message)]


@pytest.mark.parametrize(("parts", "layer", "mask"), NOT_MIXED, ids=str)
def test_other_masks_and_layers_are_not_warned_of(parts, layer, mask, recwarn):
    mean_of_heads(parts, layer, mask)
    assert not [w for w in recwarn if "mixes all heads" in str(w.message)]
