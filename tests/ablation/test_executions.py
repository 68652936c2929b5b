"""Every execution equals full forward passes with a hook, under one mask for all and one for each sample."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from engine_runs import Run, assert_close
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 6, 1, bias=False)
        )
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        out = self.body(x)
        out += x
        return self.head(nn.functional.max_pool2d(out, 2).relu_().mean((2, 3)))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * 16, 7),
        nn.Tanh(),
        nn.Linear(7, 4),
    )


def channels_last() -> nn.Module:
    """Return a network whose pooling rewrites the strides of its result."""
    layers = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def separable() -> nn.Module:
    """Return a network that treats units apart for a long way: depthwise convolutions, norms and pooling."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.Hardswish(),
        nn.Conv2d(6, 6, 3, groups=6),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 8, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


class Grouped(nn.Module):
    """A squeeze and excitation block, a grouped convolution, and shuffled channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.squeeze, self.excite = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)
        self.inner, self.head = nn.Conv2d(6, 6, 3, groups=2), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        x = nn.functional.channel_shuffle(self.inner(x), 3)
        return self.head(x.amax((2, 3)))


CASES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "first convolution": (convolutional, "0"),
    "second convolution": (convolutional, "4"),
    "pooled": (convolutional, "3"),
    "dense": (convolutional, "8"),
    "channels last": (channels_last, "0"),
    "residual stem": (Residual, "stem"),
    "residual inside": (Residual, "body.0"),
    "separable": (separable, "0"),
    "separable late": (separable, "5"),
    "grouped": (Grouped, "stem"),
}


def settled(make: Callable[[], nn.Module]) -> nn.Module:
    """Return the network in evaluation mode, with batch norms that change their input."""
    torch.manual_seed(3)
    model = make()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def with_labels(activation: Tensor, target: Tensor) -> Tensor:
    """Return a reference of the activation's shape, other for every sample, position and label."""
    return 0.3 - activation.flip(0) + 0.1 * target.reshape(-1, *[1] * (activation.ndim - 1))


REFERENCES = {"zero": None, "with labels": with_labels}


def run_of(name: str, reference: str = "zero", n: int = 5) -> Run:
    make, layer = CASES[name]
    return Run(settled(make), layer, torch.randn(n, 3, 8, 8), REFERENCES[reference])


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("name", CASES)
def test_a_run_equals_full_passes(name: str, reference: str) -> None:
    assert run_of(name, reference, n=9).check([4, 4, 1]).startswith("graph")


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("name", CASES)
def test_outputs_of_a_batch_are_those_of_full_passes_to_the_bit(name: str, reference: str) -> None:
    run = run_of(name, reference)
    [batch] = run.batches()
    given = run.outputs()
    assert torch.equal(given.intact, run.model(batch.inputs[0]))
    for number in range(len(run.plan)):
        mask = run.plan.mask(number, torch.device("cpu"))
        assert_close(given.outputs(mask), run.by_hook(batch, mask), exact=True)


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("name", CASES)
def test_a_mask_for_each_sample_equals_its_own_pass(name: str, reference: str) -> None:
    run = run_of(name, reference)
    [batch] = run.batches()
    masks = torch.rand(len(batch.target), run.units) < 0.5
    found = run.outputs().outputs(masks)
    assert_close(found, run.by_hook(batch, masks), exact=False)
    for k, mask in enumerate(masks):
        assert_close(found[k], run.by_hook(batch, mask)[k], exact=False)
