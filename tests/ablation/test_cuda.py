"""On a GPU the numbers equal full forward passes, and no step waits for the GPU. Skipped if there is none.

TF32 is off, because convolutions of another batch size would differ by 1e-3 with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torchvision
from captum.attr import LayerConductance, LayerFeatureAblation
from torch import Tensor, nn

from captum_ablate import (
    CumulativeAblationEvaluator,
    LayerClassSelectivity,
    LayerEntropy,
    LayerKLSelectivity,
    LayerLinearProbe,
    LayerMeanActivity,
    LayerMutualInformation,
    LayerSelectivityActivity,
    LayerUnitAblation,
    unit_scores,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

IMAGES, BATCH, SIDE = 24, 8, 64


@pytest.fixture(autouse=True)
def _exact_convolutions(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def pictures():
    """Noise of two scales on the GPU, in batches, with labels 0, 1, 2."""
    coarse = nn.functional.interpolate(torch.randn(IMAGES, 3, 4, 4), size=SIDE, mode="bilinear")
    x = (coarse + 0.3 * torch.randn(IMAGES, 3, SIDE, SIDE)).cuda()
    return list(zip(x.split(BATCH), (torch.arange(IMAGES) % 3).cuda().split(BATCH), strict=True))


def network(name: str) -> nn.Module:
    """Return one of torchvision's networks, or a small vision transformer, on the GPU."""
    if name == "vit":
        model: nn.Module = torchvision.models.VisionTransformer(SIDE, 16, 3, 4, 48, 96, num_classes=10)
        nn.init.normal_(model.heads.head.weight, std=0.3)  # torchvision sets it to zero
    else:
        model = getattr(torchvision.models, name)(num_classes=10)
    return model.eval().cuda()


def hook_loop(model, layer, order, counts, batches, dim, reference=0.0) -> Tensor:
    """Return logits ``[steps, n, classes]`` of full forward passes with a hook."""
    module, steps = model.get_submodule(layer), []
    for count in counts:

        def ablate(_module, _args, output, units=order[:count]):
            output = output.clone()
            output.index_fill_(dim, units.cuda(), reference)
            return output

        handle = module.register_forward_hook(ablate)
        with torch.no_grad():
            steps.append(torch.cat([model(x) for x, _ in batches]))
        handle.remove()
    return torch.stack(steps)


def units_of(model, layer, batches, dim) -> int:
    seen: list[int] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _a, output: seen.append(output.shape[dim]))
    with torch.no_grad():
        model(batches[0][0])
    handle.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("name", "layer", "dim"),
    [
        ("resnet18", "conv1", 1),
        ("resnet18", "layer3.1", 1),
        ("resnet18", "layer4.1", 1),
        ("resnet18", "avgpool", 1),
        ("mobilenet_v2", "features.14", 1),
        ("densenet121", "features.denseblock3", 1),
        ("vgg11", "features.18", 1),
        ("squeezenet1_1", "features.9", 1),
        ("shufflenet_v2_x0_5", "stage3", 1),
        ("efficientnet_b0", "features.6", 1),
        ("vit", "encoder.layers.encoder_layer_1.mlp", -1),
    ],
)
def test_curve_equals_hook_loop_on_the_gpu(name, layer, dim, pictures):
    model = network(name)
    units = units_of(model, layer, pictures, dim)
    evaluator = CumulativeAblationEvaluator(model, layer, steps=10, metric="logit", n_random=0, unit_dim=dim)
    curve = evaluator.evaluate(torch.rand(units), pictures)
    logits = hook_loop(model, layer, curve.order, curve.n_ablated, pictures, dim)
    labels = torch.cat([y for _, y in pictures])
    expected = logits[:, torch.arange(IMAGES), labels].double().mean(1).cpu()
    torch.testing.assert_close(curve.score, expected, rtol=0, atol=1e-5 * float(logits.abs().max()))
    assert not curve.engine.startswith("hook loop")


def test_several_layers_equal_full_passes(pictures):
    model, layers = network("resnet18"), ["layer2.0", "layer3.1"]
    counts = [units_of(model, layer, pictures, 1) for layer in layers]
    evaluator = CumulativeAblationEvaluator(model, layers, steps=8, metric="logit", n_random=0)
    curve = evaluator.evaluate([torch.rand(n) for n in counts], pictures)
    labels = torch.cat([y for _, y in pictures])
    for step, count in enumerate(curve.n_ablated):
        chosen = curve.order[:count]
        handles = []
        for layer, low, high in ((layers[0], 0, counts[0]), (layers[1], counts[0], sum(counts))):
            own = chosen[(chosen >= low) & (chosen < high)] - low

            def ablate(_module, _args, output, own=own):
                return output.index_fill(1, own.cuda(), 0.0)

            handles.append(model.get_submodule(layer).register_forward_hook(ablate))
        with torch.no_grad():
            logits = torch.cat([model(x) for x, _ in pictures])
        for handle in handles:
            handle.remove()
        expected = float(logits[torch.arange(IMAGES), labels].double().mean())
        assert abs(float(curve.score[step]) - expected) <= 1e-5 * float(logits.abs().max())


@pytest.mark.parametrize("reference", ["zero", "mean", "resample"])
def test_the_references_live_on_the_gpu(reference, pictures):
    model = network("resnet18")
    evaluator = CumulativeAblationEvaluator(model, "layer3.1", steps=5, reference=reference, n_random=1)
    curve = evaluator.evaluate(LayerClassSelectivity(model, "layer3.1"), pictures, ranking_data=pictures)
    assert bool(torch.isfinite(curve.score).all())
    assert not curve.engine.startswith("hook loop")


@pytest.mark.parametrize("layer", ["layer3.1", "avgpool"])
def test_single_units_equal_captum(layer, pictures):
    model = network("resnet18")
    found = LayerUnitAblation(model, layer, metric="logit").attribute(pictures)
    mask = torch.arange(len(found), device="cuda").reshape(1, -1, 1, 1)
    ablation = LayerFeatureAblation(model, model.get_submodule(layer))
    expected = torch.cat([ablation.attribute(x, target=y, layer_mask=mask)[:, :, 0, 0] for x, y in pictures])
    with torch.no_grad():
        largest = float(torch.cat([model(x) for x, _ in pictures]).abs().max())
    torch.testing.assert_close(found.cpu().double(), expected.mean(0).cpu().double(), rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize(
    "kind",
    [
        LayerMeanActivity,
        LayerClassSelectivity,
        LayerSelectivityActivity,
        LayerEntropy,
        LayerMutualInformation,
        LayerKLSelectivity,
        LayerLinearProbe,
    ],
)
def test_statistics_equal_the_cpus(kind, pictures):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 400, 3)).eval().cuda()
    found = kind(model, "1").attribute(pictures).cpu()
    model.cpu()
    expected = kind(model, "1").attribute([(x.cpu(), y.cpu()) for x, y in pictures])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_captums_own_attributions_are_ranked(pictures):
    model = network("resnet18")
    conductance = partial(unit_scores, LayerConductance(model, model.layer3[1]), n_steps=4)
    comparison = CumulativeAblationEvaluator(model, "layer3.1", steps=4, n_random=2).compare(
        {"conductance": conductance, "activity": LayerMeanActivity(model, "layer3.1")}, pictures
    )
    assert not comparison.failed


def test_random_state_is_left_as_it_was(pictures):
    model = network("resnet18")
    before = torch.cuda.get_rng_state()
    CumulativeAblationEvaluator(model, "layer3.1", steps=4, n_random=2).evaluate(torch.rand(256), pictures)
    torch.testing.assert_close(torch.cuda.get_rng_state(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "layer"), [("resnet18", "layer3.1"), ("resnet18", "avgpool"), ("alexnet", "classifier.1")]
)
def test_no_step_waits_for_the_gpu(name, layer, pictures):
    """The host waits for the GPU as often in 60 steps as in 12, by the tape and by the closed form."""
    model = network(name)
    scores = torch.rand(units_of(model, layer, pictures, 1))

    def run(steps: int) -> int:
        evaluator = CumulativeAblationEvaluator(model, layer, steps=steps, n_random=0)
        return _waits(lambda: evaluator.evaluate(scores, pictures))

    few, many = run(12), run(60)
    assert many - few < 16, f"{few} waits for 12 steps, {many} for 60"


def test_no_step_waits_with_several_layers(pictures):
    model, layers = network("resnet18"), ["layer2.0", "layer3.1"]
    scores = [torch.rand(units_of(model, layer, pictures, 1)) for layer in layers]

    def run(steps: int) -> int:
        evaluator = CumulativeAblationEvaluator(model, layers, steps=steps, n_random=0)
        return _waits(lambda: evaluator.evaluate(scores, pictures))

    few, many = run(12), run(60)
    assert many - few < 16, f"{few} waits for 12 steps, {many} for 60"


def _waits(run: Callable[[], object]) -> int:
    """Return how often host code waited for the GPU, by PyTorch's own count of synchronising calls."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)
