"""Replay equals the plain hook loop at inner layers of the architectures that people use."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import captum_networks
import pytest
import torch
import torchvision.models as zoo
from networks import built
from oracle import assert_matches, assert_order, check, dtype_of, hook_loop, one_thread, scores_for
from torch import Tensor, nn

from captum_ablate import CumulativeAblationEvaluator


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def images(side: int, n: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(n, 3, side, side, generator=generator), torch.arange(n)


def hold(
    model: nn.Module,
    layer: str,
    x: Any,
    y: Tensor,
    *,
    unit_dim: int | None = 1,
    reference: Any = "zero",
    exact: bool = True,
) -> str:
    """Compare the curve of one model, too large to build twice, with the hook loop, and return the engine."""
    scores = scores_for(model, layer, x, unit_dim)
    options: dict[str, Any] = {"metric": "logit", "unit_dim": unit_dim, "reference": reference}
    evaluator = CumulativeAblationEvaluator(model, layer, steps=4, n_random=0, seed=0, live_units_only=False, **options)
    curve = evaluator.evaluate(scores, (x, y))
    assert_order(curve, scores)
    expected = hook_loop(model, layer, x, y, curve.order, curve.n_ablated, **options)
    assert not torch.equal(expected[0], expected[-1])
    assert_matches(curve, expected, reference, dtype_of(model), exact=exact)
    return curve.engine


def small_vit() -> nn.Module:
    return zoo.VisionTransformer(
        image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=24, num_classes=5
    )


def with_head(model: nn.Module) -> nn.Module:
    """Draw the head of a vision transformer: torchvision sets it to zero, where no ablation has an effect."""
    for name, parameter in model.named_parameters():
        if name.startswith("heads"):
            nn.init.normal_(parameter, std=0.1)
    return model


def model_of(name: str | Callable[[], nn.Module], **options: Any) -> nn.Module:
    if callable(name):
        return name()
    return settled(getattr(zoo, name)(weights=None, num_classes=5, **options))


def settled(model: nn.Module) -> nn.Module:
    """Set batch norms to the statistics of some images, without which activations vanish layer by layer."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return model
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 75, 75))
    return model.eval()


def vgg11_trunk() -> nn.Module:
    """VGG-11 without its two wide layers of neurons, which take seconds to make."""
    trunk = zoo.vgg.make_layers(zoo.vgg.cfgs["A"])
    return nn.Sequential(trunk, nn.Flatten(), nn.Linear(512, 32), nn.ReLU(inplace=True), nn.Linear(32, 5))


def small_swin() -> nn.Module:
    return zoo.SwinTransformer(
        patch_size=[4, 4],
        embed_dim=12,
        depths=[2, 2, 4],
        num_heads=[2, 2, 4],
        window_size=[4, 4],
        num_classes=5,
    )


NO_INIT = {"init_weights": False}
FAMILIES: list[Any] = [
    ("resnet18", {}, 64, ("conv1", "layer2.0.conv1", "layer3.0.downsample.0", "layer3.1", "layer4.1.bn1"), 1),
    ("densenet121", {}, 64, ("features.denseblock3.denselayer5.conv2", "features.denseblock4.denselayer2.norm1"), 1),
    ("mobilenet_v2", {}, 64, ("features.7.conv.1.0", "features.14.conv.1.1"), 1),
    ("mobilenet_v3_small", {}, 64, ("features.4.block.2", "features.7.block.1.0", "classifier.0"), 1),
    (vgg11_trunk, {}, 32, ("0.11", "0.18", "2"), 1),
    ("alexnet", {}, 64, ("features.6", "classifier.1"), 1),
    ("googlenet", {**NO_INIT, "aux_logits": False}, 64, ("inception4b.branch2.0.conv", "inception5a"), 1),
    ("inception_v3", {**NO_INIT, "aux_logits": False}, 75, ("Mixed_6b.branch7x7_2.conv", "Mixed_7b.branch3x3_2a"), 1),
    ("squeezenet1_1", {}, 64, ("features.9.squeeze", "features.10.expand1x1"), 1),
    ("shufflenet_v2_x0_5", {}, 64, ("stage3.2.branch2.3", "stage3.0.branch1.0"), 1),
    ("mnasnet0_5", {}, 64, ("layers.10.1.layers.3", "layers.14"), 1),
    ("efficientnet_b0", {}, 64, ("features.4.1.block.1", "features.5.1.block.2.fc1", "features.7.0.block.3"), 1),
    ("regnet_y_400mf", {}, 64, ("trunk_output.block3.block3-1.f.b", "trunk_output.block4.block4-0.f.se.fc1"), 1),
    ("convnext_tiny", {}, 64, ("features.5.3.block.3", "features.7.1.block.5"), -1),
    (small_swin, {}, 64, ("features.3.1.mlp.0", "features.5.2.mlp.1", "features.5.3.norm1", "features.5.1.attn"), -1),
]
CASES = [
    pytest.param(name, options, side, layers, unit_dim, id=f"{getattr(name, '__name__', name)}-{unit_dim}")
    for name, options, side, layers, unit_dim in FAMILIES
]


@pytest.mark.parametrize(("name", "options", "side", "layers", "unit_dim"), CASES)
@pytest.mark.filterwarnings("ignore:.*init_weights:FutureWarning")
def test_family_equals_hook_loop(
    name: Any, options: dict[str, Any], side: int, layers: tuple[str, ...], unit_dim: int
) -> None:
    model = built(partial(model_of, name, **options))
    x, y = images(side)
    for layer in layers:
        hold(model, layer, x, y, unit_dim=unit_dim, reference=lambda a, t: 0.5 * a.flip(0))


@pytest.mark.parametrize(
    ("layer", "unit_dim"),
    [
        ("encoder.layers.encoder_layer_1.mlp.0", -1),
        ("encoder.layers.encoder_layer_1.mlp.2", None),
        ("encoder.layers.encoder_layer_1.ln_2", -1),
        ("encoder.layers.encoder_layer_2.self_attention", -1),
        ("encoder.layers.encoder_layer_0", -1),
        ("conv_proj", 1),
        ("encoder.ln", -1),
    ],
)
@pytest.mark.parametrize("reference", ["zero", "mean"])
def test_vision_transformer_equals_hook_loop(layer: str, unit_dim: int | None, reference: str) -> None:
    x, y = images(32, n=3)
    check(
        partial(built, lambda: with_head(small_vit())),
        layer,
        x,
        y,
        unit_dim=unit_dim,
        reference=reference,
        steps=4,
        batch_size=2,
        exact=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layers", "unit_dim"),
    [
        ("vgg11", ("features.11", "features.18", "classifier.0"), 1),
        ("swin_t", ("features.5.2.mlp.0", "features.5.3.norm1", "features.5.1.attn"), -1),
    ],
)
def test_large_family_equals_hook_loop(name: str, layers: tuple[str, ...], unit_dim: int) -> None:
    x, y = images(64)
    model = built(partial(model_of, name))
    for layer in layers:
        hold(model, layer, x, y, unit_dim=unit_dim)


@pytest.mark.slow
def test_large_vision_transformer_equals_hook_loop() -> None:
    x, y = images(32)
    model = built(lambda: with_head(model_of("vit_b_16", image_size=32)))
    engine = hold(model, "encoder.layers.encoder_layer_9.mlp.0", x, y, unit_dim=-1, exact=False)
    assert engine.startswith("graph")


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer4.0.relu"),
        ("resnet18", "layer1.1.relu"),
    ],
)
def test_layer_that_a_block_uses_twice_is_refused(name: str, layer: str) -> None:
    x, y = images(64)
    model = built(partial(model_of, name))
    with pytest.raises(ValueError, match="2 times"):
        CumulativeAblationEvaluator(model, layer, metric="logit", n_random=0).evaluate(torch.arange(512.0), (x, y))


@pytest.mark.parametrize("reference", ["zero", "mean"])
def test_late_layer_of_resnet_does_not_run_the_hook_loop(reference: str) -> None:
    x, y = images(64, n=4)
    model = built(partial(model_of, "resnet18"))
    for layer in ("layer4.1.conv1", "layer4.1.bn1", "layer4.0.downsample.1"):
        assert hold(model, layer, x, y, reference=reference).startswith("graph")
    hold(model, "layer4", x, y, reference=reference)


def test_channels_last_family_equals_hook_loop() -> None:
    x, y = images(64)
    model = built(partial(model_of, "mobilenet_v2")).to(memory_format=torch.channels_last)
    for layer in ("features.7.conv.1.0", "features.16.conv.0.0"):
        hold(model, layer, x.to(memory_format=torch.channels_last), y)


# --- Captum's own helper networks --------------------------------------------------------------------


def rows(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


HELPERS: dict[str, tuple[Callable[[], nn.Module], str, Any]] = {
    "ConvNet, pool1": (captum_networks.BasicModel_ConvNet, "pool1", rows(4, 1, 10, 10)),
    "ConvNet, conv2": (captum_networks.BasicModel_ConvNet, "conv2", rows(4, 1, 10, 10)),
    "ConvNet, fc1": (captum_networks.BasicModel_ConvNet, "fc1", rows(4, 1, 10, 10)),
    "ConvNet_One_Conv": (captum_networks.BasicModel_ConvNet_One_Conv, "conv1", rows(4, 1, 4, 4)),
    "ConvNet_One_Conv, in place": (
        lambda: captum_networks.BasicModel_ConvNet_One_Conv(inplace=True),
        "conv1",
        rows(4, 1, 4, 4),
    ),
    "ConvNet_MaxPool1d": (captum_networks.BasicModel_ConvNet_MaxPool1d, "conv2", rows(4, 1, 10)),
    "ConvNet_MaxPool3d": (captum_networks.BasicModel_ConvNet_MaxPool3d, "conv1", rows(4, 1, 10, 10, 10)),
    "ConvNetWithPaddingDilation": (
        captum_networks.BasicModel_ConvNetWithPaddingDilation,
        "conv1",
        rows(4, 1, 5, 5),
    ),
    "MultiLayer, linear0": (captum_networks.BasicModel_MultiLayer, "linear0", rows(4, 3)),
    "MultiLayer, linear1": (captum_networks.BasicModel_MultiLayer, "linear1", rows(4, 3)),
    "MultiLayer, in place": (lambda: captum_networks.BasicModel_MultiLayer(inplace=True), "linear1", rows(4, 3)),
    "MultiLayer, relu in place": (lambda: captum_networks.BasicModel_MultiLayer(inplace=True), "relu", rows(4, 3) + 5),
    "MultiLayer_TrueMultiInput": (
        captum_networks.BasicModel_MultiLayer_TrueMultiInput,
        "m1.linear1",
        (rows(4, 3), rows(4, 3) + 1, rows(4, 3) - 1, rows(4, 3) * 2),
    ),
    "ReLULinear": (captum_networks.ReLULinearModel, "relu", (rows(4, 3), rows(4, 3))),
    "SimpleLRP": (lambda: captum_networks.SimpleLRPModel(inplace=True), "linear", rows(4, 3)),
    "LinearMaxPoolLinear": (captum_networks.LinearMaxPoolLinearModel, "lin1", rows(4, 4)),
    "BasicLinear_Multilayer": (
        lambda: captum_networks.BasicLinearModel_Multilayer(3, 5, 2),
        "linear1",
        rows(4, 3),
    ),
    "ReusedModules, lin1": (captum_networks.BasicModelWithReusedModules, "lin1", rows(4, 3)),
}


def total(outputs: Tensor, _target: Tensor) -> Tensor:
    """Return a metric for networks with any outputs: some have one, or one for each position."""
    return outputs.flatten(1).sum(1) if outputs.ndim > 1 else outputs


@pytest.mark.may_fall_back
@pytest.mark.parametrize("name", HELPERS)
@pytest.mark.parametrize("reference", ["zero", "function"])
def test_helper_network_of_captum_equals_hook_loop(name: str, reference: str) -> None:
    make, layer, x = HELPERS[name]
    y = torch.tensor([0, 1, 1, 0])
    unit_dim = -1 if name == "LinearMaxPoolLinear" else 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a small network may fall back to the hook loop, with a warning
        check(
            partial(built, make),
            layer,
            x,
            y,
            unit_dim=unit_dim,
            metric=total,
            reference={"zero": "zero", "function": lambda a, t: 1 - a.flip(0)}[reference],
            sensitive=False,
        )


@pytest.mark.parametrize("layer", ["relu"])
def test_reused_module_of_captum_is_refused(layer: str) -> None:
    model = built(captum_networks.BasicModelWithReusedModules)
    with pytest.raises(ValueError, match="2 times"):
        CumulativeAblationEvaluator(model, layer, metric=total, n_random=0).evaluate(
            torch.arange(2.0), (rows(4, 3), torch.tensor([0, 1, 1, 0]))
        )
