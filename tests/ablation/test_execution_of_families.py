"""Each family of networks runs the execution that it should: a fast path that died would still be right, and slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from networks import built
from oracle import one_thread
from test_families import images, model_of, small_swin, small_vit, vgg11_trunk, with_head
from torch import Tensor, nn

from captum_ablate import CumulativeAblationEvaluator


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 5))


class Recurrent(nn.Module):
    """Texts of embedded tokens, a recurrent layer, and a head on its last output."""

    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM]) -> None:
        super().__init__()
        self.embed, self.layer = nn.Linear(6, 8), kind(8, 12, batch_first=True)
        self.head = nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x))[0][:, -1])


class TwoInputs(nn.Module):
    """A dict of inputs, one of them ids."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(10, 8), nn.Linear(8, 12)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 5))

    def forward(self, given: dict[str, Tensor]) -> Tensor:
        return self.head((self.layer(self.embed(given["ids"])) * given["weights"][..., None]).sum(1))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(12, 2, 24, batch_first=True)
    return nn.Sequential(nn.Linear(6, 12), nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(60, 5))


def rows(*shape: int) -> tuple[Tensor, Tensor]:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(4)), torch.arange(shape[0]) % 5


def text() -> tuple[dict[str, Tensor], Tensor]:
    weights, y = rows(4, 7)
    return {"ids": torch.arange(28).reshape(4, 7) % 10, "weights": weights}, y


UPDATED, STACKED = "graph (update, 4 masks stacked)", "graph (4 masks stacked)"
ALL = "closed form, update, stacked"
Family = tuple[Callable[[], nn.Module], Any, str | list[str], int, str]
FAMILIES: dict[str, Family] = {
    "MLP, first layer": (mlp, rows(4, 6), "1", 1, UPDATED),
    "MLP, last layer": (mlp, rows(4, 6), "3", 1, "closed form"),
    "MLP, two layers": (mlp, rows(4, 6), ["1", "3"], 1, UPDATED),
    "plain CNN": (vgg11_trunk, images(32), "0.12", 1, UPDATED),
    "plain CNN, before pooling": (vgg11_trunk, images(32), "0.17", 1, UPDATED),
    "ResNet": (partial(model_of, "resnet18"), images(64), "layer3.1", 1, UPDATED),
    "ResNet, inside a block": (partial(model_of, "resnet18"), images(64), "layer3.1.conv1", 1, UPDATED),
    "ResNet, last block": (partial(model_of, "resnet18"), images(64), "layer4", 1, "closed form"),
    "ResNet, three layers": (partial(model_of, "resnet18"), images(64), ["layer2", "layer3.0", "layer4"], 1, UPDATED),
    "MobileNetV2": (partial(model_of, "mobilenet_v2"), images(64), "features.14", 1, UPDATED),
    "MobileNetV2, before a depthwise convolution": (
        partial(model_of, "mobilenet_v2"),
        images(64),
        "features.14.conv.0",
        1,
        UPDATED,
    ),
    "DenseNet": (partial(model_of, "densenet121"), images(64), "features.denseblock3", 1, UPDATED),
    "EfficientNet": (partial(model_of, "efficientnet_b0"), images(64), "features.4", 1, UPDATED),
    "EfficientNet, last features": (partial(model_of, "efficientnet_b0"), images(64), "features", 1, "closed form"),
    "SqueezeNet": (partial(model_of, "squeezenet1_1"), images(64), "features.9", 1, UPDATED),
    "ShuffleNet": (partial(model_of, "shufflenet_v2_x0_5"), images(64), "stage3.2", 1, UPDATED),
    "ConvNeXt": (partial(model_of, "convnext_tiny"), images(64), "features.5.3.block.3", -1, UPDATED),
    "ViT, MLP": (lambda: with_head(small_vit()), images(32), "encoder.layers.encoder_layer_1.mlp", -1, STACKED),
    "ViT, neurons": (lambda: with_head(small_vit()), images(32), "encoder.layers.encoder_layer_1.mlp.1", -1, UPDATED),
    "ViT, last norm": (lambda: with_head(small_vit()), images(32), "encoder.ln", -1, "closed form"),
    "Swin": (small_swin, images(64), "features.5.2.mlp.1", -1, UPDATED),
    "transformer encoder": (encoder, rows(4, 5, 6), "0", -1, STACKED),
    "GRU": (partial(Recurrent, nn.GRU), rows(4, 7, 6), "embed", -1, STACKED),
    "LSTM": (partial(Recurrent, nn.LSTM), rows(4, 7, 6), "layer", -1, UPDATED),
    "dict of inputs": (TwoInputs, text(), "layer", -1, UPDATED),
}


def scores_of(model: nn.Module, layers: list[str], x: Any, unit_dim: int, *, at_input: bool = False) -> list[Tensor]:
    """Return distinct scores for the units of each layer."""
    counts: dict[str, int] = {}

    def note(name: str, value: Any) -> None:
        part = value[0] if isinstance(value, tuple) else value
        counts[name] = part.shape[unit_dim]

    def hook(name: str) -> Any:
        module = model.get_submodule(name)
        if at_input:
            return module.register_forward_pre_hook(lambda _m, args: note(name, args))
        return module.register_forward_hook(lambda _m, _a, out: note(name, out))

    handles = [hook(name) for name in layers]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return [torch.rand(counts[name]) for name in layers]


def engine_of(
    make: Callable[[], nn.Module], data: Any, layer: str | list[str], unit_dim: int, *, at_input: bool = False
) -> str:
    """Return the execution of a curve."""
    model, (x, y) = built(make), data
    layers = [layer] if isinstance(layer, str) else layer
    scores = scores_of(model, layers, x, unit_dim, at_input=at_input)
    evaluator = CumulativeAblationEvaluator(
        model,
        layer,
        metric="logit",
        steps=6,
        n_random=0,
        unit_dim=unit_dim,
        live_units_only=False,
        attribute_to_layer_input=at_input,
    )
    return evaluator.evaluate(scores[0] if isinstance(layer, str) else scores, [(x, y)]).engine


@pytest.mark.execution(ALL)
@pytest.mark.parametrize("family", FAMILIES)
def test_family_runs_the_execution_that_it_should(family: str) -> None:
    *case, expected = FAMILIES[family]
    assert engine_of(*case) == expected


@pytest.mark.execution("graph")
@pytest.mark.parametrize("family", FAMILIES)
def test_family_has_a_plain_graph(family: str) -> None:
    *case, _ = FAMILIES[family]
    assert engine_of(*case) == "graph"


@pytest.mark.execution(ALL)
@pytest.mark.parametrize(
    ("make", "data", "layer", "unit_dim", "expected"),
    [
        pytest.param(mlp, rows(4, 6), "2", 1, UPDATED, id="MLP"),
        pytest.param(partial(model_of, "resnet18"), images(64), "layer3.1", 1, UPDATED, id="ResNet"),
        pytest.param(encoder, rows(4, 5, 6), "1.layers.1.linear2", -1, UPDATED, id="neurons of an encoder"),
    ],
)
def test_input_of_a_layer_runs_the_execution_that_it_should(
    make: Callable[[], nn.Module], data: Any, layer: str, unit_dim: int, expected: str
) -> None:
    assert engine_of(make, data, layer, unit_dim, at_input=True) == expected


@pytest.mark.execution("folded")
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "efficientnet_b0"])
def test_batch_norm_is_folded_where_it_is_asked_for(name: str) -> None:
    layer = {"resnet18": "layer3.1", "mobilenet_v2": "features.14"}.get(name, "features.4")
    assert "folded batch norm" in engine_of(partial(model_of, name), images(64), layer, 1)


@pytest.mark.execution("folded")
def test_no_batch_norm_is_named_where_there_is_none() -> None:
    assert "folded batch norm" not in engine_of(vgg11_trunk, images(32), "0.12", 1)


@pytest.mark.execution(None)
def test_a_tiny_job_runs_full_passes_and_a_long_one_the_graph() -> None:
    """What the engine chooses by itself, far from the point where both cost the same."""
    make = partial(model_of, "resnet18")
    model, (x, y) = built(make), (images(64, n=8)[0], torch.arange(8) % 5)
    scores = torch.rand(256)
    tiny = CumulativeAblationEvaluator(model, "layer3.1", steps=1, n_random=0).evaluate(scores, (x[:2], y[:2]))
    assert tiny.engine.startswith("hook loop")
    long = CumulativeAblationEvaluator(model, "layer3.1", steps=20, n_random=5).evaluate(scores, (x, y))
    assert long.engine.startswith("graph")


@pytest.mark.execution(None)
def test_a_deep_layer_of_a_transformer_of_hugging_face_runs_the_graph() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64, num_labels=3
    )
    model = built(lambda: transformers.BertForSequenceClassification(config))
    batch = {"input_ids": torch.randint(50, (32, 12)), "attention_mask": torch.ones(32, 12, dtype=torch.long)}
    evaluator = CumulativeAblationEvaluator(model, "bert.encoder.layer.2.intermediate", unit_dim=-1, n_random=5)
    curve = evaluator.evaluate(torch.rand(64), [(batch, torch.arange(32) % 3)])
    assert curve.engine.startswith("graph")
